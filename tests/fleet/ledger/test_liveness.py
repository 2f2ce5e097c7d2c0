"""Beats and deadlines, each guard at its boundary. Mutation found what was not said."""

import pytest

from palyra_fleet.ledger.liveness import heartbeat_within_ms, leases_to_stop
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from tests.fakes.ledger_world import LedgerWorld, reasons, ulid

W1 = ulid(1001)
NOW = 2_000


def registered() -> LedgerWorld:
    world = LedgerWorld()
    world.register(W1)
    return world


def test_a_beat_in_the_last_millisecond_is_in_time_and_one_after_it_is_late() -> None:
    late = registered().manager.state.beats[W1].deadline_unix_ms + 1
    for now, told in (
        (late - 1, []),
        (late, ["worker.heartbeat_stale", "worker.heartbeat"]),
    ):
        world = registered()
        assert reasons(world.do(world.manager.heartbeat(W1, 1, 1, now))) == told


def test_a_worker_that_was_missed_is_missed_once_and_its_next_beat_is_told() -> None:
    world = registered()
    late = world.manager.state.beats[W1].deadline_unix_ms + 1
    assert reasons(world.do(world.manager.reap(late))) == ["worker.heartbeat_stale"]
    assert reasons(world.do(world.manager.reap(late + 10**6))) == []
    assert reasons(world.do(world.manager.heartbeat(W1, 1, 1, late))) == ["worker.heartbeat"]


def test_a_worker_stops_every_lease_but_the_one_the_fleet_holds_for_it() -> None:
    world = registered()
    stranger = (ulid(7), 1)
    assert leases_to_stop(world.manager.state, W1, (stranger,)) == (stranger[0],)
    lease = world.lease(W1, "run-1", NOW)
    mine, older = (lease.lease_id, lease.fence), (lease.lease_id, lease.fence - 1)
    told = leases_to_stop(world.manager.state, W1, (stranger, mine, older))
    assert told == (stranger[0], older[0])


@pytest.mark.parametrize("uncordoned", [True, False])
@pytest.mark.parametrize("leased", [True, False])
def test_a_drain_ends_the_lease_that_is_held_at_its_deadline(
    uncordoned: bool, leased: bool
) -> None:
    world = registered()
    if leased:
        world.lease(W1, "run-1", NOW)
    world.do(world.manager.drain(W1, "alice", "why", 100, NOW))
    if uncordoned:
        world.do(world.manager.uncordon(W1, "alice", "why", NOW))
    ended = ["worker.lease_revoked"] if leased and not uncordoned else []
    assert reasons(world.do(world.manager.reap(NOW + 99))) == []
    assert reasons(world.do(world.manager.reap(NOW + 100))) == ended


def test_a_worker_that_was_stale_before_the_fleet_started_beats_again() -> None:
    world = registered()
    world.do(world.manager.reap(10**6))
    state = LedgerState()
    state.load((world.worker(W1),), 0, 10**6, 1)
    assert state.beats == {}
    world.manager.state = state
    assert reasons(world.do(world.manager.heartbeat(W1, 1, 1, 10**6))) == ["worker.heartbeat"]


def test_a_worker_is_never_told_to_beat_at_once_for_ever() -> None:
    world = registered()
    policy = WorkerFleetPolicy(heartbeat_timeout_ms=1, heartbeats_per_second=10_000)
    assert heartbeat_within_ms(world.manager.state, policy, W1, 1) == 1
