"""The storm breaker freezes new leases until an operator looks, and never skips a quarantine."""

from pathlib import Path

import pytest

from palyra_fleet.ledger import storm
from palyra_fleet.ledger.decision import Decision, FleetFreeze
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire.freeze_models import UnfreezeRequest
from tests.fakes.fleet_world import FleetWorld, WorkerPen, fleet_world, settings
from tests.fakes.ledger_world import LedgerWorld, ulid

POLICY = WorkerFleetPolicy(storm_quarantines_per_minute=2)


def test_the_one_too_many_freezes_in_the_same_decision() -> None:
    world = LedgerWorld()
    for number in (101, 102, 103):
        world.register(ulid(number))
        decision = world.manager.quarantine(ulid(number), "alice", "why", 3_000)
        assert isinstance(decision, Decision)
        world.do(storm.trip(world.manager.state, POLICY, decision))
    frozen = [FleetFreeze(True, 3_000) in one.records for one in world.decisions if one.quarantines]
    assert frozen == [False, False, True]
    assert isinstance(storm.refusal(world.manager.state, POLICY), Refusal)


def test_under_a_limit_that_was_lowered_the_last_minute_stops_leases_and_freezes_nothing() -> None:
    """After a restart: only a new quarantine freezes until an operator looks."""
    world = LedgerWorld()
    for number in (101, 102, 103):
        world.register(ulid(number))
        world.do(world.manager.quarantine(ulid(number), "alice", "why", 3_000))
    state = world.manager.state
    assert storm.refusal(state, WorkerFleetPolicy(storm_quarantines_per_minute=3)) is None
    refused = storm.refusal(state, POLICY)
    assert refused is not None and refused.reason is FleetReason.STORM
    nothing = Decision(3_000)
    assert storm.trip(state, POLICY, nothing) == nothing


async def test_frozen_stays_frozen_over_a_restart_and_time_until_an_operator_unfreezes(
    tmp_path: Path,
) -> None:
    async with fleet_world(SqliteFleetStore(tmp_path / "state"), POLICY) as world:
        for number in (101, 102, 103, 104):
            await world.register(WorkerPen(ulid(number)))
            shown = await world.service.quarantine("alice", ulid(number), "why")
            assert shown.admission == "quarantined"
    store = SqliteFleetStore(tmp_path / "state")
    world.clock.forward(600_000)
    service = await FleetService.start_on(store, settings(tmp_path, POLICY), world.clock)
    again = FleetWorld(service, world.clock, world.launcher, world.proxy)
    try:
        worker = WorkerPen(ulid(201))
        await again.register(worker)
        with pytest.raises(FleetRefusal) as caught:
            await again.lease(worker, "run-1")
        assert caught.value.reason is FleetReason.STORM
        assert "frozen" in service.health()["storm_breaker"] and "storm" in service.alarms()
        await service.unfreeze("alice", UnfreezeRequest(reason="a policy was wrong, and is mended"))
        assert service.health()["storm_breaker"] == "ok"
        await again.ask(worker, "run-1")
        with pytest.raises(FleetRefusal) as caught:
            await service.unfreeze("alice", UnfreezeRequest(reason="again"))
        assert caught.value.reason is FleetReason.NOT_FROZEN
        reasons = [event.reason for event in await service.events(0, 1000)]
        assert reasons.count("fleet.leases_frozen") == reasons.count("fleet.leases_unfrozen") == 1
        assert reasons.count("worker.quarantined_by_operator") == 4
    finally:
        await service.close()
