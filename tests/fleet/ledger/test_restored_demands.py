"""What becomes of demands, and of keys that they retire, where a snapshot is put in place."""

from dataclasses import replace

import pytest

from palyra_fleet.ledger.auditor import audit_worker
from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.facts import EvidenceDemand
from palyra_fleet.ledger.restoring import RETIRED, Confined, restored
from palyra_fleet.refusals import FleetReason
from tests.fakes.ledger_world import LedgerWorld, attested, reasons, refused
from tests.fleet.ledger.test_reattesting import DUE, NOW, W1, W2, demand, evidence


@pytest.fixture
def world() -> LedgerWorld:
    """The snapshot: it knows W1."""
    made = LedgerWorld()
    made.register(W1)
    return made


def put_back(since: LedgerWorld, world: LedgerWorld) -> Decision:
    held = Confined.of(since.manager.state)
    return world.do(restored(world.manager.state, held, True, {}, DUE))


def test_a_restore_forgets_no_demand(world: LedgerWorld) -> None:
    since = LedgerWorld()
    since.register(W1)
    since.register(W2)
    since.do(demand(since, new_key=True))
    world.register(W2)
    told = put_back(since, world)
    assert reasons(told) == ["worker.reattestation_demanded", "fleet.restored"]
    kept = world.worker(W1).demand
    assert kept == EvidenceDemand("alice", "why", True, NOW, DUE)
    assert world.manager.state.tombstones == set(), "the demand says of the key what is to be said"
    assert world.worker(W2).demand is None
    assert audit_worker(world.manager.state, world.manager.policy, W1) == ()


def test_a_restore_keeps_the_demand_of_the_snapshot_and_says_nothing_new(
    world: LedgerWorld,
) -> None:
    world.do(demand(world))
    since = LedgerWorld()
    since.register(W1)
    assert reasons(put_back(since, world)) == ["fleet.restored"]
    assert world.worker(W1).demand is not None


def test_a_key_that_was_retired_after_the_snapshot_stays_retired(world: LedgerWorld) -> None:
    since = LedgerWorld()
    since.register(W1)
    since.do(demand(since, new_key=True))
    since.do(since.manager.register(evidence(since, "next"), NOW, continues=True))
    put_back(since, world)
    assert world.worker(W1).demand == EvidenceDemand("fleet", RETIRED, True, DUE, DUE)
    assert audit_worker(world.manager.state, world.manager.policy, W1) == ()
    assert refused(world.manager.register(attested(W1), DUE)) is FleetReason.WORKER_BANNED
    world.do(world.manager.register(evidence(world, "next", at=DUE), DUE))
    assert world.worker(W1).demand is None


def test_a_key_that_is_to_be_replaced_does_not_come_back_beside_the_snapshots(
    world: LedgerWorld,
) -> None:
    since = LedgerWorld()
    since.register(W1)
    since.do(since.manager.register(evidence(since, "doubted"), NOW))
    since.do(demand(since, new_key=True))
    put_back(since, world)
    kept = world.worker(W1).demand
    assert kept == EvidenceDemand("alice", "why", True, NOW, DUE)
    for key, met in (("key", False), ("doubted", False), ("next", True)):
        outcome = world.manager.register(evidence(world, key, at=DUE), DUE)
        assert isinstance(outcome, Decision) is met, key


def test_a_key_of_which_only_evidence_was_demanded_may_come_back(world: LedgerWorld) -> None:
    since = LedgerWorld()
    since.register(W1)
    since.do(since.manager.register(evidence(since, "other"), NOW))
    since.do(demand(since))
    put_back(since, world)
    world.do(world.manager.register(evidence(world, "other", at=DUE), DUE))
    assert world.worker(W1).demand is None


@pytest.mark.parametrize("under_another_id", [False, True])
def test_a_key_that_is_to_be_replaced_does_not_come_back_under_another_id(
    world: LedgerWorld, under_another_id: bool
) -> None:
    """Its worker was new, or had another id, after the snapshot."""
    world.do(world.manager.evict(W1, "alice", "why", NOW))
    if under_another_id:
        same_key = replace(attested(W1), worker_id=W2, evidence_identity="of another")
        world.do(world.manager.register(same_key, NOW))
    since = LedgerWorld()
    since.register(W1)
    since.do(demand(since, new_key=True))
    put_back(since, world)
    again = attested(W1, now_unix_ms=DUE)
    assert refused(world.manager.register(again, DUE)) is FleetReason.WORKER_BANNED
    if under_another_id:
        assert world.worker(W2).demand == EvidenceDemand("fleet", RETIRED, True, DUE, DUE)
        assert audit_worker(world.manager.state, world.manager.policy, W2) == ()


@pytest.mark.parametrize("new_key", [False, True])
def test_a_restore_to_a_clock_that_was_ahead_locks_nobody_out(
    world: LedgerWorld, new_key: bool
) -> None:
    """The time of a fleet that was restored begins at the clock's."""
    ahead = DUE + 86_400_000
    since = LedgerWorld()
    since.register(W1)
    since.do(demand(since, new_key, at=ahead))
    put_back(since, world)
    shown = evidence(world, "next" if new_key else "key", at=DUE)
    world.do(world.manager.register(shown, DUE))
    assert world.worker(W1).demand is None


def test_nothing_is_demanded_of_whom_a_restore_holds(world: LedgerWorld) -> None:
    since = LedgerWorld()
    since.register(W1)
    since.do(demand(since, new_key=True))
    since.do(since.manager.register(evidence(since, "next"), NOW, continues=True))
    since.do(since.manager.quarantine(W1, "alice", "why", NOW))
    put_back(since, world)
    assert world.worker(W1).confined
    assert world.worker(W1).demand is None
