"""The more workers there are, the less often each beats, and the later it is missed."""

from dataclasses import dataclass, field

import pytest

from palyra_fleet.ledger.facts import Liveness
from palyra_fleet.ledger.liveness import heartbeat_within_ms
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import BEATS_IN_TIMEOUT, WorkerFleetPolicy
from tests.fakes.ledger_world import LedgerWorld, ulid

NOW = 2_000


@pytest.mark.parametrize(
    ("workers", "timeout_ms"),
    [
        (0, 30_000),
        (1, 30_000),
        (10_000, 30_000),
        (10_001, 30_003),
        (100_000, 300_000),
        (300_000, 900_000),
        (1_000_000, 900_000),
    ],
)
def test_the_timeout_grows_with_the_fleet_and_has_an_end(workers: int, timeout_ms: int) -> None:
    assert WorkerFleetPolicy().heartbeat_timeout_of(workers) == timeout_ms


def test_up_to_the_longest_timeout_all_beats_together_stay_within_what_the_fleet_takes() -> None:
    policy = WorkerFleetPolicy()
    for workers in (10_000, 50_000, 250_000):
        beats = workers * BEATS_IN_TIMEOUT * 1_000 / policy.heartbeat_timeout_of(workers)
        assert beats <= policy.heartbeats_per_second


def test_a_base_that_is_longer_than_the_longest_stays() -> None:
    policy = WorkerFleetPolicy(heartbeat_timeout_ms=1_000, heartbeat_timeout_max_ms=500)
    assert policy.heartbeat_timeout_of(10**9) == 1_000


@dataclass(slots=True)
class Fleet:
    """A fleet that takes one beat a second and has some workers."""

    size: int
    world: LedgerWorld = field(init=False)

    def __post_init__(self) -> None:
        policy = WorkerFleetPolicy(heartbeat_timeout_ms=1_000, heartbeats_per_second=1)
        self.world = LedgerWorld(WorkerFleetManager(policy))
        for number in range(1, self.size + 1):
            self.world.register(ulid(number), NOW)

    def beat(self, number: int, seq: int, now: int) -> None:
        self.world.do(self.world.manager.heartbeat(ulid(number), 1, seq, now))

    def within_ms(self, number: int, seq: int) -> int:
        manager = self.world.manager
        return heartbeat_within_ms(manager.state, manager.policy, ulid(number), seq)

    def is_live(self, number: int, now: int) -> bool:
        self.world.do(self.world.manager.reap(now))
        return self.world.worker(ulid(number)).liveness is Liveness.LIVE


def test_a_worker_is_missed_by_the_size_of_the_fleet_when_it_beat() -> None:
    fleet = Fleet(5)
    fleet.beat(1, 1, NOW)
    assert fleet.is_live(1, NOW + 5 * 6_000)
    assert not fleet.is_live(1, NOW + 5 * 6_000 + 1)


def test_what_a_worker_is_told_leaves_it_time_for_three_beats() -> None:
    for size in (1, 3, 8):
        fleet = Fleet(size)
        for seq in range(1, 20):
            fleet.beat(1, seq, NOW)
            told = fleet.within_ms(1, seq)
            deadline = fleet.world.manager.state.beats[ulid(1)].deadline_unix_ms
            assert 0 < told * 3 <= deadline - NOW
            assert told * 4 > deadline - NOW


def test_a_fleet_that_grew_takes_nobodys_time_and_one_that_shrank_asks_more_often_again() -> None:
    fleet = Fleet(5)
    fleet.beat(1, 1, NOW)
    for number in (2, 3, 4, 5):
        manager = fleet.world.manager
        fleet.world.do(manager.evict(ulid(number), "alice", "why", NOW))
    assert fleet.is_live(1, NOW + 30_000)  # it was told of a fleet of five
    fleet.beat(1, 2, NOW + 30_000)
    assert not fleet.is_live(1, NOW + 36_001)


def test_after_a_start_each_worker_gets_the_time_of_a_fleet_of_this_size() -> None:
    fleet = Fleet(4)
    records = tuple(fleet.world.manager.state.workers.values())
    started = WorkerFleetManager(fleet.world.manager.policy)
    started.state.load(records, 0, NOW, started.heartbeat_timeout_ms(records))
    fleet.world.manager = started
    assert fleet.is_live(1, NOW + 24_000)
    assert not fleet.is_live(1, NOW + 24_001)
