"""A fleet with one leased worker that is quarantined, and dies at a named point of that.

Run with the state directory and the failpoint. Prints, before it dies: what a proxy heard last
(`heard EPOCH SEQ`) and the lease (`lease WORKER LEASE FENCE SESSION`).
"""

import asyncio
import sys
from pathlib import Path

from palyra_fleet.service.fleet_service import FleetService
from tests.fakes.fleet_world import Clock, FleetWorld, WorkerPen, settings
from tests.fakes.ledger_world import ulid
from tests.fleet.crash.failpoint_child import kill_at
from tests.fleet.crash.fleet_child import acknowledge


async def main(state_dir: Path, point: str) -> None:
    clock = Clock()
    world = FleetWorld(await FleetService.start(settings(state_dir), clock), clock)
    await world.enrol()
    worker = WorkerPen(ulid(1))
    await world.register(worker)
    lease = await world.lease(worker, "run-1", 600_000)
    async for message in world.service.view(world.proxy.name):
        acknowledge("heard", message.epoch, message.seq)
        break
    session = worker.session_epoch
    acknowledge("lease", worker.worker_id, lease.lease_id, lease.fence, session)
    kill_at(point, 1)
    await world.service.quarantine("alice", worker.worker_id, "looks wrong")
    acknowledge("survived")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
