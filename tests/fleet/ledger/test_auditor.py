"""The auditor tells each broken invariant, and a healthy ledger nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from palyra_fleet.leases.offers import Offer
from palyra_fleet.leases.records import LeaseStatus, WorkerLease
from palyra_fleet.ledger.auditor import audit, audit_worker
from palyra_fleet.ledger.deadlines import DeadlineKind
from palyra_fleet.ledger.decision import Tombstone, TombstoneKind
from palyra_fleet.ledger.facts import Admission, Eligibility, Liveness, Work, WorkerRecord
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, FleetRefusal
from tests.fakes.fleet_world import WorkerPen, fleet_world
from tests.fakes.ledger_world import FAR_UNIX_MS, LedgerWorld, ulid
from tests.fakes.placing_world import W1 as P1
from tests.fakes.placing_world import W2 as P2
from tests.fakes.placing_world import PlacingWorld

W1, W2, W3 = (ulid(n) for n in (1, 2, 3))
POLICY = WorkerFleetPolicy()


@pytest.fixture
def world() -> LedgerWorld:
    """One worker that works, one that is held, one that is free; one open approval."""
    world = LedgerWorld()
    for worker_id in (W1, W2, W3):
        world.register(worker_id)
    world.lease(W1, "run-1", 2_000)
    world.grant("run-2", 2_000)
    world.do(world.manager.quarantine(W2, "alice", "why", 2_100))
    return world


def _lease(state: LedgerState) -> WorkerLease:
    (lease,) = state.leases.values()
    return lease


def _worker(worker_id: str, **facts: object) -> Callable[[LedgerState], None]:
    def spoil(state: LedgerState) -> None:
        state.workers[worker_id] = replace(state.workers[worker_id], **facts)  # type: ignore[arg-type]

    return spoil


def _leased(**facts: object) -> Callable[[LedgerState], None]:
    def spoil(state: LedgerState) -> None:
        lease = _lease(state)
        state.leases[lease.lease_id] = replace(lease, **facts)  # type: ignore[arg-type]

    return spoil


def _grant_back(state: LedgerState) -> None:
    (grant,) = state.grants.values()
    state.grants[_lease(state).grant_id] = grant


def _banned_without_marks(state: LedgerState) -> None:
    worker = state.workers[W2]
    state.workers[W2] = replace(worker, admission=Admission.BANNED)


def _active_under_tombstone(state: LedgerState) -> None:
    state.tombstones.add(Tombstone(TombstoneKind.KEY, state.workers[W3].proof.key_sha256))


def _second_lease(state: LedgerState) -> None:
    lease = _lease(state)
    state.leases["other"] = replace(lease, lease_id="other")


def _held_with_lease(state: LedgerState) -> None:
    lease = _lease(state)
    state.lease_by_worker[W2] = lease.lease_id


def _forget_worker(state: LedgerState) -> None:
    del state.workers[W1]


def _cancel(kind: DeadlineKind, of: str) -> Callable[[LedgerState], None]:
    return lambda state: state.deadlines.cancel(
        kind, _lease(state).lease_id if of == "lease" else of
    )


SPOILED = [
    (_second_lease, "1: a worker or a run"),
    (_grant_back, "1: grant"),
    (_leased(status=LeaseStatus.BUSY), "1: lease"),
    (_leased(run_id="run-9"), "1: lease"),
    (_leased(fence=7), "2: lease"),
    (lambda state: setattr(state, "highest_fence", 0), "2: lease"),
    (_held_with_lease, "3: worker"),
    (_banned_without_marks, "3: worker"),
    (_active_under_tombstone, "3: worker"),
    (_worker(W2, quarantine=None), "4: worker"),
    (_worker(W2, admission=Admission.ACTIVE), "4: worker"),
    (_leased(grant_expires_at_unix_ms=2_001), "5: lease"),
    (_leased(expires_at_unix_ms=2_100 + 10**7), "5: lease"),
    (_worker(W3, eligibility=Eligibility.DRAINING), "7: worker"),
    (_worker(W3, drain_deadline_unix_ms=5), "7: worker"),
    (_worker(W3, cleanup_verified=False), "8: worker"),
    (_worker(W3, work=Work.ASSIGNED), "works without a lease"),
    (_cancel(DeadlineKind.HEARTBEAT, W3), "8: worker"),
    (lambda state: state.beats.clear(), "8: worker"),
    (_cancel(DeadlineKind.LEASE, "lease"), "11: nothing would end"),
    (_forget_worker, "is nobody's"),
    (lambda state: state.worker_by_key.clear(), "not found by its key"),
    (lambda state: state.worker_by_identity.clear(), "not found by its identity"),
    (lambda state: state.worker_by_identity.update(x="y"), "knows workers that are not there"),
    (lambda state: state.leases_per_principal.clear(), "counted wrong"),
    (lambda state: state.grants_by_run.clear(), "filed wrong"),
    (_worker(W3, attestation_epoch=0), "from the future"),
]


def _offered() -> tuple[PlacingWorld, Offer]:
    world = PlacingWorld()
    for worker_id in (P1, P2):
        world.join(worker_id)
    world.wait(P1, P2)
    return world, world.offer()


def _put_offer(**changes: object) -> Callable[[LedgerState, Offer], None]:
    return lambda state, offer: state.placing.offers.update(
        {offer.offer_id: replace(offer, **changes)}  # type: ignore[arg-type]
    )


SPOILED_OFFERS: list[tuple[Callable[[LedgerState, Offer], None], str]] = [
    (lambda state, offer: state.placing.offer_by_run.clear(), "1: a worker or a run has two"),
    (lambda state, offer: state.placing.offer_by_run.clear(), "1: the run that worker"),
    (lambda state, offer: state.workers.pop(P1) and None, "an offer is nobody's"),
    (lambda state, offer: state.placing.leave(P2), "would never be offered"),
    (
        lambda state, offer: state.placing.enter(P1, (frozenset(), 2), (0, 0, 0)),  # type: ignore[arg-type]
        "could be offered a run that it may not take",
    ),
    (
        lambda state, offer: state.deadlines.cancel(DeadlineKind.WAITING, P2),
        "could be offered a run that it may not take",
    ),
    (lambda state, offer: state.grants.clear(), "is offered a run that it may not take"),
    (
        lambda state, offer: state.workers.update(
            {P1: replace(state.workers[P1], work=Work.ORPHANED)}
        ),
        "is offered a run that it may not take",
    ),
    (_put_offer(expires_at_unix_ms=FAR_UNIX_MS + 1), "for longer than its evidence"),
    (lambda state, offer: state.lease_by_run.update({"run-1": "lease"}), "has a lease"),
    (
        lambda state, offer: state.deadlines.cancel(DeadlineKind.OFFER, offer.offer_id),
        "11: nothing would end what",
    ),
]


@pytest.mark.parametrize(("spoil", "told"), SPOILED_OFFERS)
def test_each_broken_invariant_of_offers_is_told(
    spoil: Callable[[LedgerState, Offer], None], told: str
) -> None:
    world, offer = _offered()
    state = world.manager.state
    world.checked()
    spoil(state, offer)
    assert any(told in one for one in audit(state, world.manager.policy))


def test_a_healthy_ledger_has_nothing_to_tell(world: LedgerWorld) -> None:
    assert audit(world.manager.state, POLICY) == ()
    assert audit_worker(world.manager.state, POLICY, "nobody") == ()


@pytest.mark.parametrize(("spoil", "told"), SPOILED)
def test_each_broken_invariant_is_told(
    world: LedgerWorld, spoil: Callable[[LedgerState], None], told: str
) -> None:
    spoil(world.manager.state)
    found = audit(world.manager.state, POLICY)
    assert any(told in sentence for sentence in found), found


def test_more_leases_than_the_policy_gives_are_told(world: LedgerWorld) -> None:
    world.lease(W3, "run-3", 2_100)
    found = audit(world.manager.state, WorkerFleetPolicy(max_leases=1))
    assert "more leases are live than the policy gives" in found
    found = audit(world.manager.state, WorkerFleetPolicy(leases_per_principal=1))
    assert "more leases are live than the policy gives" in found


def test_a_stale_worker_needs_no_deadline(world: LedgerWorld) -> None:
    world.do(world.manager.reap(10**6))
    assert {w.liveness for w in world.manager.state.workers.values()} == {Liveness.STALE}
    assert audit(world.manager.state, POLICY) == ()


async def test_a_fleet_whose_ledger_is_broken_gives_no_leases_and_still_quarantines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with fleet_world() as world:
        worker, other = WorkerPen(W1), WorkerPen(W2)
        for pen in (worker, other):
            await world.register(pen)
        assert world.service.health()["ledger"] == "ok"
        state = world.service._manager.state

        def forgets_an_index(record: WorkerRecord) -> None:
            state.workers[record.worker_id] = record

        monkeypatch.setattr(LedgerState, "_put_worker", lambda _, r: forgets_an_index(r))
        state.worker_by_identity.clear()
        await world.service.cordon("alice", W1, "why")
        assert "not found by its identity" in world.service.health()["ledger"]
        with pytest.raises(FleetRefusal) as caught:
            await world.lease(other, "run-1")
        assert caught.value.reason is FleetReason.STATE_UNUSABLE
        await world.service.quarantine("alice", W2, "why")
        assert (await world.service.worker(W2)).admission == "quarantined"
