"""Lists of workers: by what they have in common, page by page, and what is no filter."""

import pytest

from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.worker_filter import WorkerFilter
from palyra_fleet.wire.reattest_models import ReattestRequest
from tests.fakes.fleet_world import FleetWorld, WorkerPen, fleet_world
from tests.fakes.ledger_world import LedgerWorld, attested, ulid

IDLE, BUSY, CORDONED, HELD = (ulid(number) for number in (101, 102, 103, 104))


async def populated(world: FleetWorld) -> None:
    for worker_id in (IDLE, BUSY, CORDONED, HELD):
        pen = WorkerPen(worker_id)
        await world.register(pen)
        if worker_id == BUSY:
            await world.lease(pen, "run-1")
    await world.service.reattest("alice", BUSY, ReattestRequest(reason="why", new_key=True))
    await world.service.cordon("alice", CORDONED, "why")
    await world.service.quarantine("alice", HELD, "why")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (WorkerFilter(), [HELD, CORDONED, BUSY, IDLE]),
        (WorkerFilter(state="assigned"), [BUSY]),
        (WorkerFilter(state="quarantined"), [HELD]),
        (WorkerFilter(eligibility="cordoned"), [CORDONED]),
        (WorkerFilter(eligibility="eligible", state="quarantined"), [HELD]),
        (WorkerFilter(attestor="launcher"), [HELD, CORDONED, BUSY, IDLE]),
        (WorkerFilter(attestor="k8s_psat"), []),
        (WorkerFilter(capability="gpu"), []),
        (WorkerFilter(waits=True), []),
        (WorkerFilter(waits=False), [HELD, CORDONED, BUSY, IDLE]),
        (WorkerFilter(demanded=True), [BUSY]),
        (WorkerFilter(demanded=True, state="quarantined"), []),
        (WorkerFilter(demanded=False), [HELD, CORDONED, IDLE]),
    ],
)
async def test_a_list_shows_the_workers_that_fit(wanted: WorkerFilter, found: list[str]) -> None:
    async with fleet_world() as world:
        await populated(world)
        shown = await world.service.workers_page(wanted, 100)
        assert [one.worker_id for one in shown] == found


@pytest.mark.parametrize(("capability", "fits"), [("gpu", True), ("tpu", False), (None, True)])
def test_only_what_a_worker_proved_is_its_capability(capability: str | None, fits: bool) -> None:
    policy = WorkerFleetPolicy(trusted_capabilities=frozenset({"gpu"}))
    world = LedgerWorld(WorkerFleetManager(policy))
    world.do(world.manager.register(attested(IDLE, capabilities=("gpu", "tpu")), 2_000))
    assert WorkerFilter(capability=capability).fits(world.worker(IDLE), 2_000, waits=False) is fits


@pytest.mark.parametrize(
    ("wanted", "waits", "fits"),
    [
        *((True, True, True), (True, False, False), (False, True, False)),
        *((False, False, True), (None, True, True), (None, False, True)),
    ],
)
def test_who_asks_for_those_that_wait_gets_only_them_or_only_the_others(
    wanted: bool | None, waits: bool, fits: bool
) -> None:
    world = LedgerWorld()
    world.register(IDLE)
    assert WorkerFilter(waits=wanted).fits(world.worker(IDLE), 2_000, waits=waits) is fits


async def test_pages_of_those_that_fit_miss_and_repeat_none() -> None:
    async with fleet_world() as world:
        await populated(world)
        first = await world.service.workers_page(WorkerFilter(), 3)
        rest = await world.service.workers_page(WorkerFilter(), 3, first[-1].worker_id)
        assert [one.worker_id for one in (*first, *rest)] == [HELD, CORDONED, BUSY, IDLE]
