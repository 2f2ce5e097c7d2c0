"""A fleet that has evidence is read before it is replaced, like any other. `make crash` found that
it was not: then every worker of the snapshot was held."""

from pathlib import Path

from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.store.restore import restore
from palyra_fleet.store.snapshot import save
from tests.fakes.fleet_world import START_UNIX_MS, Clock, FleetWorld, WorkerPen, settings
from tests.fakes.ledger_world import ulid

FREE, HELD = ulid(1), (ulid(2), ulid(3), ulid(4))


async def test_evidence_that_is_there_does_not_make_state_unreadable(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    clock = Clock()
    service = await FleetService.start(settings(state), clock)
    world = FleetWorld(service, clock)
    await world.enrol()
    await world.register(WorkerPen(FREE))
    for worker_id in HELD:
        worker = WorkerPen(worker_id)
        await world.register(worker)
        lease = await world.lease(worker, f"run-{worker_id}")
        evidence = world.proxy.violation(lease, clock())
        await service.accept_violation(world.proxy.name, evidence)
    await service.close()
    save(state, file)
    told = restore(state, file, START_UNIX_MS, replace=True)
    assert (told.before, told.kept_confined, told.newly_quarantined) == ("read", len(HELD), 0)
