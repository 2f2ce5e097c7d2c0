"""Placing, one rule at a time: who is offered a run, in which order, and how an offer ends."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.artifacts import ArtifactTransport
from palyra_fleet.leases.offers import Offer, PlacementOrder
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant
from palyra_fleet.ledger import enrolment
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.decision import Decision, EnrolledKey
from palyra_fleet.ledger.facts import OUTCOMES, failures_of, with_outcome
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.placement_models import OfferState, OrderKind
from tests.fakes.ledger_world import (
    FAR_UNIX_MS,
    SCOPE,
    LedgerWorld,
    attested,
    key_of,
    reasons,
    refused,
    ulid,
)

W1, W2, W3 = ulid(1001), ulid(1002), ulid(1003)
NOW = 3_000


@dataclass(slots=True)
class PlacingWorld(LedgerWorld):
    """A ledger with shorthand for waiting, placing and taking."""

    beats: int = 0

    def join(self, worker_id: str, now: int = 2_000, **facts: object) -> None:
        result = attested(worker_id, now_unix_ms=now, **facts)  # type: ignore[arg-type]
        self.do(self.manager.register(result, now))

    def wait(self, *worker_ids: str, now: int = NOW, waits: bool = True) -> None:
        for worker_id in worker_ids:
            self.beats += 1
            session = self.worker(worker_id).session_epoch
            self.do(self.manager.heartbeat(worker_id, session, self.beats, now, waits))

    def place(self, run_id: str, now: int = NOW, **order: object) -> Outcome:
        grant = self.manager.state.usable_grant(run_id, now)
        grant_id = None if grant is None else grant.grant_id
        asked = PlacementOrder(run_id, 60_000, **order)  # type: ignore[arg-type]
        return self.manager.place(asked, grant_id, self.next_id(), "alice", now)

    def offer(self, run_id: str = "run-1", now: int = NOW, **order: object) -> Offer:
        self.grant(run_id, now)
        (offer,) = self.do(self.place(run_id, now, **order)).offers
        return offer

    def take(self, offer: Offer, now: int = NOW, **said: object) -> Outcome:
        order = LeaseOrder(offer.order.run_id, 60_000, (), SCOPE, offer_id=offer.offer_id)
        session = self.worker(offer.worker_id).session_epoch
        order = replace(order, **said)  # type: ignore[arg-type]
        return self.manager.grant_lease(
            offer.worker_id, session, offer.grant_id, order, self.next_id(), "5" * 64, now
        )

    def became(self, offer: Offer) -> OfferState:
        return self.manager.state.placing.ended[offer.offer_id].state

    def checked(self) -> None:
        assert audit(self.manager.state, self.manager.policy) == ()


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


def test_a_worker_has_one_offer_at_a_time(world: PlacingWorld) -> None:
    world.wait(W1)
    world.offer("run-1")
    world.wait(W1)
    world.grant("run-2", NOW)
    assert refused(world.place("run-2")) is FleetReason.NO_WORKER


def test_the_run_is_kept_for_its_worker_until_the_offer_ends(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    assert refused(world.ask(W2, "run-1", NOW)) is FleetReason.RUN_OFFERED
    world.do(world.manager.reap(offer.expires_at_unix_ms))
    world.do(world.ask(W2, "run-1", offer.expires_at_unix_ms))


def test_taking_ends_the_offer_and_is_in_the_log(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    decision = world.do(world.take(offer))
    assert reasons(decision) == ["worker.assigned"]
    assert decision.events[0].detail["offer_id"] == offer.offer_id
    assert world.became(offer) is OfferState.TAKEN
    assert refused(world.take(offer)) is FleetReason.GRANT_SPENT
    assert not world.manager.state.beats[W1].waits
    assert world.worker(W1).last_used_at_unix_ms == NOW
    world.checked()


def test_it_is_taken_without_its_number_too_but_as_it_says(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    assert refused(world.take(offer, offer_id=None, ttl_ms=60_001)) is FleetReason.LEASE_INVALID
    world.do(world.take(offer, offer_id=None))
    assert world.became(offer) is OfferState.TAKEN


@pytest.mark.parametrize(
    "said",
    [
        {"ttl_ms": 60_001},
        {"required_capabilities": ("gpu",)},
        {"artifact_transport": ArtifactTransport((), ("out",), 5)},
    ],
)
def test_a_lease_that_is_not_as_offered_is_refused(
    world: PlacingWorld, said: dict[str, object]
) -> None:
    world.wait(W1)
    assert refused(world.take(world.offer(), **said)) is FleetReason.LEASE_INVALID


def test_a_read_only_offer_is_taken_read_only() -> None:
    world = PlacingWorld()
    world.join(W1, binding_level=BindingLevel.ENFORCED)
    world.wait(W1)
    offer = world.offer(read_only=True)
    assert refused(world.take(offer)) is FleetReason.LEASE_INVALID
    world.do(world.take(offer, workspace_scope=replace(SCOPE, read_only=True)))


def test_what_is_approved_to_read_only_is_placed_and_taken_so() -> None:
    world = PlacingWorld()
    world.join(W1, binding_level=BindingLevel.ENFORCED)
    world.wait(W1)
    grant = world.manager.state.grants[world.grant("run-2", NOW)]
    reading = replace(grant, grant_id=ulid(60), run_id="run-1", read_only=True)
    world.do(world.manager.create_grant(reading, "alice", NOW))
    assert refused(world.place("run-1")) is FleetReason.LEASE_INVALID
    (offer,) = world.do(world.place("run-1", read_only=True)).offers
    assert refused(world.take(offer)) is FleetReason.LEASE_INVALID
    world.do(world.take(offer, workspace_scope=replace(SCOPE, read_only=True)))


def test_another_approval_of_the_run_does_not_take_the_offer(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    other = world.grant("run-1", NOW)
    assert refused(world.take(replace(offer, grant_id=other))) is FleetReason.LEASE_INVALID


def test_an_offer_that_ended_or_is_anothers_is_not_taken_by_its_number(
    world: PlacingWorld,
) -> None:
    world.wait(W1)
    offer = world.offer()
    assert refused(world.take(replace(offer, worker_id=W2))) is FleetReason.OFFER_ENDED
    assert refused(world.take(replace(offer, offer_id=ulid(7)))) is FleetReason.OFFER_ENDED
    world.do(world.manager.reap(offer.expires_at_unix_ms))
    late = world.take(offer, offer.expires_at_unix_ms)
    assert refused(late) is FleetReason.OFFER_ENDED


def test_an_offer_lapses_at_its_end_and_counts_until_the_next_beat(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    end = offer.expires_at_unix_ms
    world.do(world.manager.reap(end - 1))
    assert world.manager.state.placing.offers
    decision = world.do(world.manager.reap(end))
    assert reasons(decision) == ["worker.offer_lapsed"]
    assert world.became(offer) is OfferState.LAPSED
    assert failures_of(world.worker(W1)) == 1
    assert refused(world.place("run-1", end)) is FleetReason.NO_WORKER
    world.wait(W1, now=end)
    assert isinstance(world.place("run-1", end), Decision)
    world.checked()


def test_a_declined_run_is_free_at_once(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    foreign = world.manager.decline(W2, 1, offer.offer_id, "not mine", NOW)
    assert refused(foreign) is FleetReason.OFFER_ENDED
    decision = world.do(world.manager.decline(W1, 1, offer.offer_id, "no room", NOW))
    assert reasons(decision) == ["worker.offer_declined"]
    assert decision.events[0].actor == W1
    assert world.became(offer) is OfferState.DECLINED
    again = world.manager.decline(W1, 1, offer.offer_id, "no room", NOW)
    assert refused(again) is FleetReason.OFFER_ENDED
    assert refused(world.place("run-1")) is FleetReason.NO_WORKER
    world.do(world.ask(W2, "run-1", NOW))


def test_a_quarantined_worker_declines_nothing(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    outcome = world.manager.decline(W1, 1, offer.offer_id, "no room", NOW)
    assert refused(outcome) is FleetReason.WORKER_QUARANTINED


PROXY = EnrolledKey("proxy", "proxy-1", key_of("proxy-1"))


def _withdraw(world: PlacingWorld, offer: Offer) -> Outcome:
    grant = world.manager.state.grants[offer.grant_id]
    return world.manager.withdraw_grant(grant, "alice", "why", NOW)


def _no_proxy(world: PlacingWorld, offer: Offer) -> Outcome:
    world.do(enrolment.enrol(world.manager.state, PROXY, "alice", NOW))
    return enrolment.take_back(world.manager.state, "proxy", "proxy-1", "alice", "why", NOW)


def _operator(verb: str, *more: object) -> Callable[[PlacingWorld, Offer], Outcome]:
    return lambda world, offer: getattr(world.manager, verb)(W1, "alice", "why", *more, NOW)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "ends",
    [
        *(_operator(verb) for verb in ("quarantine", "cordon", "ban", "evict")),
        _operator("drain", 1_000),
        _withdraw,
        _no_proxy,
        lambda world, offer: world.manager.register(attested(W1, now_unix_ms=NOW), NOW),
        lambda world, offer: world.manager.register(attested(W1, "new", now_unix_ms=NOW), NOW),
        lambda world, offer: world.manager.end_what_time_bounds(1, NOW),
        lambda world, offer: world.manager.reap(world.manager.state.beats[W1].deadline_unix_ms + 1),
    ],
)
def test_what_ends_the_worker_or_the_approval_ends_the_offer(
    world: PlacingWorld, ends: Callable[[PlacingWorld, Offer], Outcome]
) -> None:
    world.manager.policy = replace(world.manager.policy, offer_ms=60_000)
    world.wait(W1)
    offer = world.offer()
    decision = world.do(ends(world, offer))
    assert "worker.offer_ended" in reasons(decision)
    assert world.became(offer) is OfferState.ENDED
    assert world.manager.state.placing.offers == {}
    known = world.manager.state.workers.get(W1)
    assert known is None or failures_of(known) == 0
    world.checked()


def test_another_run_ends_the_offer(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    world.lease(W1, "run-2", NOW)
    assert world.became(offer) is OfferState.ENDED
    world.checked()


def test_an_overdue_beat_ends_the_offer_although_the_worker_is_back(world: PlacingWorld) -> None:
    world.manager.policy = replace(world.manager.policy, offer_ms=60_000)
    world.wait(W1)
    offer = world.offer()
    world.wait(W1, now=world.manager.state.beats[W1].deadline_unix_ms + 1)
    assert world.became(offer) is OfferState.ENDED
    assert world.manager.state.placing.waits(W1)


def test_a_session_that_goes_on_keeps_its_offer_and_its_word(world: PlacingWorld) -> None:
    """To take it, a worker whose receipt is older than a minute has to prove itself again."""
    world.wait(W1, W2)
    offer = world.offer(now=NOW)
    for worker_id in (W1, W2):
        proof = attested(worker_id, now_unix_ms=NOW + 5)
        world.do(world.manager.register(proof, NOW + 5, continues=True))
    assert world.manager.state.placing.offers == {offer.offer_id: offer}
    assert world.manager.state.placing.waits(W2)
    world.do(world.take(offer, NOW + 6))


def test_a_new_session_has_to_say_anew_that_it_waits(world: PlacingWorld) -> None:
    world.wait(W1)
    world.register(W1, NOW)
    assert not world.manager.state.placing.waits(W1)


def test_an_offer_ends_with_evidence_that_became_shorter(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    shorter = attested(W1, now_unix_ms=NOW, until_unix_ms=NOW + 50)
    world.do(world.manager.register(shorter, NOW, continues=True))
    assert world.manager.state.placing.offers[offer.offer_id].expires_at_unix_ms == NOW + 50
    world.checked()
    world.do(world.manager.reap(NOW + 50))
    assert world.became(offer) is OfferState.LAPSED


def test_no_offer_is_longer_than_evidence_or_approval(world: PlacingWorld) -> None:
    world.wait(W1)
    world.grant("run-1", NOW, NOW + 70)
    (offer,) = world.do(world.place("run-1")).offers
    assert offer.expires_at_unix_ms == NOW + 70
    world.join(W3, until_unix_ms=NOW + 50)
    world.wait(W1, waits=False)
    world.wait(W3)
    assert world.offer("run-2").expires_at_unix_ms == NOW + 50


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
