"""A fleet that commits as fast as it can and says what it acknowledged, until it is killed.

Run with the state directory and the number of the round. Every line on stdout is one
acknowledgement, written only after the service answered: `epoch <n>`, `lease <lease> <fence>`,
`done <lease>`, `quarantined <worker> <evidence digest>`, `asked <worker> <release>`,
`released <worker>`.
"""

import asyncio
import itertools
import sys
from pathlib import Path

from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.service.fleet_service import FleetService
from tests.fakes.fleet_world import Clock, FleetWorld, ProxyPen, WorkerPen, settings
from tests.fakes.ledger_world import ulid


def acknowledge(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(state_dir: Path, number: int) -> None:
    clock = Clock()
    policy = WorkerFleetPolicy(storm_quarantines_per_minute=10**6)
    service = await FleetService.start(settings(state_dir, policy), clock)
    await play(service, clock, number)


async def play(service: FleetService, clock: Clock, number: int) -> None:
    """Lease after lease, three at a time; some end in quarantine, and some workers come back."""
    world = FleetWorld(service, clock, proxy=ProxyPen(f"proxy-{number}"))
    world.launcher_name = f"launcher-{number}"
    await world.enrol()
    acknowledge("epoch", service.epoch)
    for count in itertools.count():
        clock.forward(1)
        await asyncio.gather(*(_one(world, number, 3 * count + n) for n in range(3)))
        await _caught(world, number, count)
        await _let_back(world, number, count)


async def _one(world: FleetWorld, number: int, count: int) -> None:
    worker = WorkerPen(ulid(number * 10**6 + count))
    await world.register(worker)
    lease = await world.lease(worker, f"run-{number}-{count}")
    acknowledge("lease", lease.lease_id, lease.fence)
    await world.complete(worker, lease)
    acknowledge("done", lease.lease_id)


async def _caught(world: FleetWorld, number: int, count: int) -> None:
    worker = WorkerPen(ulid(number * 10**6 + 500_000 + count))
    await world.register(worker)
    lease = await world.lease(worker, f"run-{number}-caught-{count}")
    acknowledge("lease", lease.lease_id, lease.fence)
    evidence = world.proxy.violation(lease, world.clock())
    await world.service.accept_violation(world.proxy.name, evidence)
    acknowledge("quarantined", worker.worker_id, world.proxy.last_sha256)


async def _let_back(world: FleetWorld, number: int, count: int) -> None:
    """Two persons release it."""
    worker_id = ulid(number * 10**6 + 700_000 + count)
    await world.register(WorkerPen(worker_id))
    await world.service.quarantine("alice", worker_id, "why")
    await world.register(WorkerPen(worker_id))
    asked = await world.service.request_release("alice", worker_id, "why")
    acknowledge("asked", worker_id, asked.release_id)
    await world.service.approve_release("bob", asked.release_id, "why")
    acknowledge("released", worker_id)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
