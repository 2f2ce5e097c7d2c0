"""Placing, one rule at a time: who is offered a run, and in which order."""

from dataclasses import replace

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.artifacts import ArtifactTransport
from palyra_fleet.leases.offers import PlacementOrder
from palyra_fleet.leases.records import WorkerApprovalGrant
from palyra_fleet.ledger.facts import OUTCOMES, failures_of, with_outcome
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.placement_models import OrderKind
from tests.fakes.ledger_world import (
    FAR_UNIX_MS,
    reasons,
    refused,
)
from tests.fakes.placing_world import NOW, W1, W2, W3, PlacingWorld


@pytest.fixture
def world() -> PlacingWorld:
    world = PlacingWorld()
    for worker_id in (W1, W2):
        world.join(worker_id)
    return world


def test_a_run_is_offered_to_who_waits_and_nobody_has_a_lease_yet(world: PlacingWorld) -> None:
    world.wait(W2)
    world.grant("run-1", NOW)
    decision = world.do(world.place("run-1"))
    (offer,) = decision.offers
    assert reasons(decision) == ["worker.offered"]
    (notice,) = decision.notices
    assert (notice.worker_id, notice.kind, notice.offer) == (W2, OrderKind.OFFERED, offer)
    assert (offer.worker_id, offer.expires_at_unix_ms) == (W2, NOW + 10_000)
    assert decision.records == ()
    assert world.manager.state.leases == {}
    world.checked()


def test_nobody_who_does_not_wait_is_offered_anything(world: PlacingWorld) -> None:
    world.grant("run-1", NOW)
    assert refused(world.place("run-1")) is FleetReason.NO_WORKER
    world.wait(W1)
    world.wait(W1, waits=False)
    assert refused(world.place("run-1")) is FleetReason.NO_WORKER


@pytest.mark.parametrize("verb", ["quarantine", "cordon", "evict", "ban", "drain"])
def test_who_may_work_no_more_waits_no_more(world: PlacingWorld, verb: str) -> None:
    world.wait(W1)
    more = (1_000,) if verb == "drain" else ()
    world.do(getattr(world.manager, verb)(W1, "alice", "why", *more, NOW))
    world.grant("run-1", NOW)
    assert refused(world.place("run-1")) is FleetReason.NO_WORKER
    world.checked()


def test_who_is_uncordoned_waits_again_by_its_last_word(world: PlacingWorld) -> None:
    world.wait(W1)
    world.do(world.manager.cordon(W1, "alice", "why", NOW))
    world.do(world.manager.uncordon(W1, "alice", "why", NOW))
    assert world.offer().worker_id == W1


def test_capabilities_and_isolation_are_asked_for() -> None:
    world = PlacingWorld(
        WorkerFleetManager(WorkerFleetPolicy(trusted_capabilities=frozenset({"gpu"})))
    )
    world.join(W1)
    world.join(W2, capabilities=("gpu",))
    world.join(W3, binding_level=BindingLevel.ENFORCED)
    world.wait(W1, W2, W3)
    assert world.offer("run-1", required_capabilities=("gpu",)).worker_id == W2
    assert world.offer("run-2", read_only=True).worker_id == W3
    world.grant("run-3", NOW)
    assert refused(world.place("run-3", read_only=True)) is FleetReason.NO_WORKER
    assert refused(world.place("run-3", required_capabilities=("gpu",))) is FleetReason.NO_WORKER


def test_an_approval_for_one_worker_is_offered_to_it_alone(world: PlacingWorld) -> None:
    grant = WorkerApprovalGrant(
        world.next_id(), "run-1", "tool", "who", "profile", FAR_UNIX_MS, "alice", worker_id=W2
    )
    world.do(world.manager.create_grant(grant, "alice", NOW))
    world.wait(W1)
    assert refused(world.place("run-1")) is FleetReason.NO_WORKER
    world.wait(W2)
    (offer,) = world.do(world.place("run-1")).offers
    assert offer.worker_id == W2


def test_without_an_approval_nothing_is_offered(world: PlacingWorld) -> None:
    world.wait(W1)
    assert refused(world.place("run-1")) is FleetReason.NO_GRANT
    grant_id = world.grant("run-1", NOW, NOW + 10)
    order, offer_id = PlacementOrder("run-2", 1_000), world.next_id()
    other = world.manager.place(order, grant_id, offer_id, "alice", NOW)
    assert refused(other) is FleetReason.LEASE_INVALID
    order = PlacementOrder("run-1", 1_000)
    late = world.manager.place(order, grant_id, offer_id, "alice", NOW + 10)
    assert refused(late) is FleetReason.GRANT_SPENT


@pytest.mark.parametrize(
    "wrong",
    [
        PlacementOrder("run-1", 0),
        PlacementOrder("run-1", 1, (), False, ArtifactTransport((), ("out", "out"), 5)),
    ],
    ids=["no time", "an output twice"],
)
def test_an_order_that_no_lease_could_have_is_refused(
    world: PlacingWorld, wrong: PlacementOrder
) -> None:
    world.wait(W1)
    grant_id = world.grant("run-1", NOW)
    outcome = world.manager.place(wrong, grant_id, world.next_id(), "alice", NOW)
    assert refused(outcome) is FleetReason.LEASE_INVALID
    least = PlacementOrder("run-1", 1, (), False, ArtifactTransport((), ("out",), 5))
    world.do(world.manager.place(least, grant_id, world.next_id(), "alice", NOW))


def test_a_run_that_runs_or_is_offered_is_placed_no_second_time(world: PlacingWorld) -> None:
    world.wait(W1, W2)
    offer = world.offer()
    assert refused(world.place("run-1")) is FleetReason.RUN_OFFERED
    world.do(world.take(offer))
    world.grant("run-1", NOW)
    assert refused(world.place("run-1")) is FleetReason.RUN_LEASED


def test_where_there_is_no_room_nothing_is_offered() -> None:
    world = PlacingWorld(WorkerFleetManager(WorkerFleetPolicy(max_leases=1)))
    world.join(W1)
    world.lease(W1, "run-1", 2_000)
    world.join(W2)
    world.wait(W2)
    world.grant("run-2", NOW)
    assert refused(world.place("run-2")) is FleetReason.LEASES_FULL


def test_least_recently_used_comes_first_then_the_freshest_receipt(world: PlacingWorld) -> None:
    world.join(W3, now=2_500)
    world.wait(W1, W2, W3)
    first = world.offer("run-1", NOW)
    assert first.worker_id == W3  # none was used, its receipt is the freshest
    lease = next(iter(world.do(world.take(first)).records))
    assert lease is not None
    assert world.offer("run-2", NOW).worker_id == W1  # equals go by id


def test_who_failed_lately_comes_last_and_is_forgiven_with_time(world: PlacingWorld) -> None:
    world.wait(W1, W2)
    offer = world.offer("run-1")
    assert offer.worker_id == W1
    world.do(world.manager.decline(W1, 1, offer.offer_id, "no room", NOW))
    world.wait(W1)
    (second,) = world.do(world.place("run-1")).offers
    assert second.worker_id == W2
    worker = world.worker(W1)
    assert failures_of(worker) == 1
    for _ in range(OUTCOMES - 1):
        worker = with_outcome(worker, failed=False)
        assert failures_of(worker) == 1
    assert failures_of(with_outcome(worker, failed=False)) == 0


def test_runs_that_end_badly_count_and_those_that_an_operator_ends_do_not(
    world: PlacingWorld,
) -> None:
    lease = world.lease(W1, "run-1", 2_100, 1_000)
    world.do(world.manager.reap(lease.expires_at_unix_ms))
    assert failures_of(world.worker(W1)) == 1
    other = world.lease(W2, "run-2", 3_200)
    world.do(world.manager.revoke_lease(other.lease_id, "alice", "why", 3_300))
    assert failures_of(world.worker(W2)) == 0


def test_who_placed_reads_in_the_log_why_this_worker(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    (event,) = world.decisions[-1].events
    assert event.actor == "alice"
    assert event.detail == {
        "offer_id": offer.offer_id,
        "run_id": "run-1",
        "grant_id": offer.grant_id,
        "expires_at_unix_ms": NOW + 10_000,
        "recent_failures": 0,
        "last_used_at_unix_ms": 0,
        "bound_at_unix_ms": 2_000,
    }


def test_who_has_no_evidence_any_more_leaves_the_order_by_itself() -> None:
    world = PlacingWorld()
    world.join(W1, until_unix_ms=NOW + 100)
    world.wait(W1)
    world.do(world.manager.reap(NOW + 99))
    assert world.manager.state.placing.waits(W1)
    world.do(world.manager.reap(NOW + 100))
    assert not world.manager.state.placing.waits(W1)
    world.checked()


def test_a_policy_that_asks_for_more_meets_who_waited_before(world: PlacingWorld) -> None:
    """Such workers are passed over until they prove themselves again."""
    world.join(W3, now=2_900)
    world.do(world.complete(world.lease(W3, "run-0", 2_900), 2_900))
    world.wait(W1, W2, W3)
    assert next(world.manager.state.placing.in_order(frozenset(), BindingLevel.OBSERVED)) == W1
    world.manager.policy = replace(world.manager.policy, binding_max_age_ms=500)
    assert world.offer().worker_id == W3


def test_memory_that_is_read_again_forgets_offers_and_knows_who_waits(
    world: PlacingWorld,
) -> None:
    world.wait(W1, W2)
    offer = world.offer()
    state = world.manager.state
    records = (*state.workers.values(), *state.grants.values())
    world.manager.reload(records, 0, NOW)
    assert world.manager.state.placing.offers == {}
    assert world.manager.state.placing.waits(W1)
    assert refused(world.take(offer)) is FleetReason.OFFER_ENDED
    world.checked()


def test_placing_looks_at_no_list_of_workers(world: PlacingWorld) -> None:
    class Unlisted(dict[str, object]):
        def __iter__(self) -> object:  # type: ignore[override]
            raise AssertionError("a scan")

        values = items = keys = __iter__  # type: ignore[assignment]

    world.wait(W1, W2)
    world.grant("run-1", NOW)
    state = world.manager.state
    state.workers = Unlisted(state.workers)  # type: ignore[assignment]
    state.beats = Unlisted(state.beats)  # type: ignore[assignment]
    (offer,) = world.do(world.place("run-1")).offers
    world.do(world.take(offer))
