"""What the ledger holds after a start: beats of the living, quarantines of the last minute."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from palyra_fleet.leases.records import LeaseStatus
from palyra_fleet.ledger.deadlines import DeadlineKind
from palyra_fleet.ledger.decision import Decision, FleetFreeze, Record
from palyra_fleet.ledger.facts import Liveness, WorkerRecord
from palyra_fleet.ledger.state import STORM_WINDOW_MS, LedgerState
from tests.fakes.ledger_world import LedgerWorld, reasons, ulid

W1, W2, W3 = ulid(1001), ulid(1002), ulid(1003)
NOW = 100_000


def loaded(records: Iterable[Record]) -> LedgerState:
    state = LedgerState()
    state.load(records, 0, NOW, 500)
    return state


def quarantined(at_unix_ms: int) -> WorkerRecord:
    world = LedgerWorld()
    world.register(W1)
    world.do(world.manager.quarantine(W1, "alice", "why", at_unix_ms))
    return world.worker(W1)


def test_after_a_start_only_the_living_are_waited_for() -> None:
    world = LedgerWorld()
    world.register(W1)
    stale = replace(world.worker(W1), liveness=Liveness.STALE)
    assert loaded((stale,)).beats == {}
    assert loaded((world.worker(W1),)).beats[W1].deadline_unix_ms == NOW + 500


@pytest.mark.parametrize(
    ("freeze", "at_unix_ms", "counted"),
    [
        (None, NOW - STORM_WINDOW_MS, None),
        (None, NOW - STORM_WINDOW_MS + 1, NOW - STORM_WINDOW_MS + 1),
        (None, NOW + 1, NOW),  # the clock was set back: it counts for a minute from now
        (FleetFreeze(False, NOW - 9), NOW - 9, None),  # an operator looked
        (FleetFreeze(False, NOW - 9), NOW - 8, NOW - 8),
        (FleetFreeze(True, NOW - 9), NOW - 9, NOW - 9),
    ],
    ids=["a minute ago", "within it", "to come", "before the thaw", "after it", "while frozen"],
)
def test_after_a_start_the_quarantines_of_the_last_minute_that_nobody_looked_at_count(
    freeze: FleetFreeze | None, at_unix_ms: int, counted: int | None
) -> None:
    records = [quarantined(at_unix_ms), *([] if freeze is None else [freeze])]
    expected = [] if counted is None else [counted]
    assert list(loaded(records).recent_quarantines) == expected


def test_memory_that_is_read_again_keeps_the_beats_of_who_is_there_and_lives() -> None:
    world = LedgerWorld()
    for worker_id in (W1, W2, W3):
        world.register(worker_id)
        world.do(world.manager.heartbeat(worker_id, 1, 7, 2_000))
    stale = replace(world.worker(W2), liveness=Liveness.STALE)
    world.manager.reload((world.worker(W1), stale), 0, 2_000)
    assert {worker_id: beat.seq for worker_id, beat in world.manager.state.beats.items()} == {W1: 7}


def test_time_is_never_earlier_than_it_was() -> None:
    """Invariant 11."""
    state = LedgerState()
    for at_unix_ms in (9, 5):
        state.apply(Decision(at_unix_ms))
    assert state.high_water_unix_ms == 9


def test_what_is_due_stays_due_until_it_was_reaped() -> None:
    world = LedgerWorld()
    world.register(W1)
    lease = world.lease(W1, "run-1", 2_000, 500)
    world.register(W2, lease.expires_at_unix_ms)
    assert reasons(world.do(world.manager.reap(lease.expires_at_unix_ms))) == ["worker.ttl_expired"]


def test_an_event_that_tells_nothing_more_has_an_empty_detail() -> None:
    world = LedgerWorld()
    world.register(W1)
    (event,) = world.do(world.manager.reap(10**9)).events
    assert (event.reason.value, event.detail) == ("worker.heartbeat_stale", {})


def test_quarantines_count_for_a_minute_and_until_an_operator_looks() -> None:
    state = loaded([quarantined(NOW)])
    state.apply(Decision(NOW + STORM_WINDOW_MS - 1))
    assert list(state.recent_quarantines) == [NOW]
    state.apply(Decision(NOW + STORM_WINDOW_MS))
    assert list(state.recent_quarantines) == []
    for frozen, counted in ((True, [NOW]), (False, [])):
        state = loaded([quarantined(NOW)])
        state.apply(Decision(NOW, records=(FleetFreeze(frozen, NOW),)))
        assert list(state.recent_quarantines) == counted


def test_a_run_has_the_approval_that_can_be_used_and_is_for_who_asks() -> None:
    world = LedgerWorld()
    grant = world.manager.state.grants[world.grant("run-1", 2_000, 3_000)]
    state = world.manager.state
    assert state.usable_grant("run-1", 2_999, W1) == state.usable_grant("run-1", 2_999) == grant
    assert state.usable_grant("run-1", 3_000) is None
    state.grants[grant.grant_id] = for_w2 = replace(grant, worker_id=W2)
    assert state.usable_grant("run-1", 2_000, W1) is None
    assert state.usable_grant("run-1", 2_000, W2) == for_w2


def test_indexes_follow_leases_and_approvals_and_keep_nothing_of_what_ended() -> None:
    world = LedgerWorld()
    state = world.manager.state
    for worker_id in (W1, W2):
        world.register(worker_id)
    first = world.lease(W1, "run-1", 2_000)
    second = world.lease(W2, "run-2", 2_000)
    world.do(world.manager.start_lease(W1, 1, first.lease_id, first.fence, 2_000))
    assert state.leases_per_principal == {"principal": 2}
    world.do(world.complete(first, 2_000))
    assert state.leases_per_principal == {"principal": 1}
    world.do(world.complete(second, 2_000))
    assert dict(state.leases_per_principal) == {}
    one, other = (state.grants[world.grant("run-3", 2_000)] for _ in range(2))
    world.do(world.manager.withdraw_grant(one, "alice", "why", 2_000))
    assert dict(state.grants_by_run) == {"run-3": {other.grant_id: None}}
    world.do(world.manager.withdraw_grant(other, "alice", "why", 2_000))
    assert state.grants_by_run == {}


@pytest.mark.parametrize("last", ["uncordon", "cordon"])
def test_only_a_drain_has_a_deadline(last: str) -> None:
    world = LedgerWorld()
    world.register(W1)
    deadlines = world.manager.state.deadlines
    world.do(world.manager.drain(W1, "alice", "why", 100, 2_000))
    assert deadlines.at(DeadlineKind.DRAIN, W1) == 2_100
    world.do(getattr(world.manager, last)(W1, "alice", "why", 2_000))
    assert deadlines.at(DeadlineKind.DRAIN, W1) is None


def test_who_was_missed_has_no_deadline_of_beats() -> None:
    world = LedgerWorld()
    world.register(W1)
    world.do(world.manager.reap(10**9))
    assert world.manager.state.deadlines.at(DeadlineKind.HEARTBEAT, W1) is None


def test_who_is_stale_has_no_deadline_of_beats_whatever_made_it_stale() -> None:
    world = LedgerWorld()
    world.register(W1)
    deadlines = world.manager.state.deadlines
    assert deadlines.at(DeadlineKind.HEARTBEAT, W1) is not None
    stale = replace(world.worker(W1), liveness=Liveness.STALE)
    world.do(Decision(2_000, records=(stale,)))
    assert deadlines.at(DeadlineKind.HEARTBEAT, W1) is None


def test_a_lease_that_ended_before_it_was_held_changes_nothing() -> None:
    world = LedgerWorld()
    world.register(W1)
    lease = world.lease(W1, "run-1", 2_000)
    state = LedgerState()
    state.apply(Decision(2_000, records=(replace(lease, status=LeaseStatus.REVOKED),)))
    assert state == LedgerState(high_water_unix_ms=2_000)
