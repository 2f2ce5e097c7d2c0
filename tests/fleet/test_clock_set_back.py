"""Invariant 11 over restarts: a clock set back while the fleet is away lengthens nothing."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from palyra_fleet.clock import ForwardClock
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.fleet_service import FleetService
from tests.fakes.fleet_world import START_UNIX_MS, FleetWorld, WorkerPen, settings
from tests.fakes.ledger_world import ulid

POLICY = WorkerFleetPolicy(heartbeat_timeout_ms=10**7)


@dataclass(slots=True)
class Machine:
    """A wall clock that may be set, a time since boot that may not."""

    wall_ms: int = START_UNIX_MS
    since_boot_ms: int = 1_000
    boot_id: str = "boot-1"

    def clock(self) -> ForwardClock:
        return ForwardClock(lambda: self.wall_ms, lambda: self.since_boot_ms, self.boot_id)

    def passes(self, ms: int) -> None:
        self.wall_ms += ms
        self.since_boot_ms += ms

    def reboots(self) -> None:
        self.boot_id, self.since_boot_ms = self.boot_id + "+", 50


async def _started(place: Path, machine: Machine, world: FleetWorld | None = None) -> FleetWorld:
    clock = machine.clock()
    service = await FleetService.start(settings(place, POLICY), clock)
    if world is None:
        world = FleetWorld(service, clock)  # type: ignore[arg-type]
        await world.enrol()
    world.service, world.clock = service, clock  # type: ignore[assignment]
    return world


async def _refused(work: object) -> FleetReason:
    with pytest.raises(FleetRefusal) as caught:
        await work  # type: ignore[misc]
    return caught.value.reason


async def test_within_one_boot_a_lease_ends_when_it_should_however_the_clock_is_set(
    tmp_path: Path,
) -> None:
    machine = Machine()
    world = await _started(tmp_path / "s", machine)
    worker = WorkerPen(ulid(1))
    await world.register(worker)
    lease = await world.lease(worker, "run-1", 60_000)
    await world.service.close()
    machine.passes(59_000)
    machine.wall_ms -= 3_600_000
    world = await _started(tmp_path / "s", machine, world)
    assert [held.lease_id for held in await world.service.leases(9)] == [lease.lease_id]
    machine.passes(1_000)
    await world.service.reap()
    assert await world.service.leases(9) == ()
    assert "behind the fleet's time" in world.service.alarms()["clock"]
    await world.service.close()


async def test_in_another_boot_with_an_earlier_clock_all_that_a_time_bounds_has_ended(
    tmp_path: Path,
) -> None:
    machine = Machine()
    world = await _started(tmp_path / "s", machine)
    worker, caught = WorkerPen(ulid(1)), WorkerPen(ulid(2))
    for pen in (worker, caught):
        await world.register(pen)
    lease = await world.lease(worker, "run-1")
    await world.grant("run-2")
    await world.service.quarantine("alice", caught.worker_id, "why")
    await world.service.close()
    machine.passes(10_000)
    machine.reboots()
    machine.wall_ms = START_UNIX_MS - 3_600_000
    world = await _started(tmp_path / "s", machine, world)
    service = world.service
    assert await service.leases(9) == ()
    assert await _refused(world.complete(worker, lease)) is FleetReason.REATTEST_FIRST
    assert all(grant.withdrawn or grant.uses for grant in await service.grants())
    assert await _refused(world.ask(worker, "run-2")) is FleetReason.NO_GRANT
    shown = {view.worker_id: view for view in await service.workers()}
    assert shown[caught.worker_id].admission == "quarantined"
    assert shown[worker.worker_id].attested_until_unix_ms <= START_UNIX_MS
    assert "clock" in service.alarms()
    (event,) = [e for e in await service.events(0, 99) if e.reason == "fleet.clock_set_back"]
    assert event.detail["leases"] == 1
    await world.register(worker)  # new evidence, a new approval: work goes on
    await world.lease(worker, "run-3")
    await service.close()


async def test_a_clock_that_was_left_alone_ends_nothing_in_another_boot(tmp_path: Path) -> None:
    machine = Machine()
    world = await _started(tmp_path / "s", machine)
    worker = WorkerPen(ulid(1))
    await world.register(worker)
    lease = await world.lease(worker, "run-1", 60_000)
    await world.service.close()
    machine.passes(20_000)
    machine.reboots()
    world = await _started(tmp_path / "s", machine, world)
    assert world.service.alarms() == {}
    await world.beat(worker, lease)
    await world.complete(worker, lease)
    await world.service.close()
