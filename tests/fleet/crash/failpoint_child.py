"""The fleet of `fleet_child`, killed by itself at a named failpoint.

Run with the state directory, the number of the round, the failpoint and at which visit to it. The
observer is set here and nowhere else; `prune.*` and `restore.*` are reached by doing that.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.store import failpoints
from palyra_fleet.store.protocol import Retention
from palyra_fleet.store.restore import restore
from palyra_fleet.store.snapshot import save
from palyra_fleet.store.sqlite import SqliteFleetStore
from tests.fakes.fleet_world import START_UNIX_MS, Clock, settings
from tests.fleet.crash.fleet_child import acknowledge, play


def kill_at(point: str, visit: int) -> None:
    visits = 0

    def observe(reached: str) -> None:
        nonlocal visits
        visits += reached == point
        if visits == visit:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.observer = observe


async def _prune(state_dir: Path) -> None:
    store = SqliteFleetStore(state_dir)
    await store.open(START_UNIX_MS)
    retention = Retention(ended_ms=24 * 3_600_000, events=1_000, step=50)
    while (await store.prune(retention, START_UNIX_MS + 10**12)).more:
        pass
    await store.close()


async def main(state_dir: Path, number: int, point: str, visit: int) -> None:
    kill_at(point, visit)
    match point.partition(".")[0]:
        case "prune":
            await _prune(state_dir)
        case "restore":
            snapshot = state_dir.with_name(f"snapshot-{number}")
            save(state_dir, snapshot)
            restore(state_dir, snapshot, START_UNIX_MS, replace=True)
        case _:
            clock = Clock()
            policy = WorkerFleetPolicy(storm_quarantines_per_minute=10**6)
            service = await FleetService.start(settings(state_dir, policy), clock)
            await play(service, clock, number)
    acknowledge("survived")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
