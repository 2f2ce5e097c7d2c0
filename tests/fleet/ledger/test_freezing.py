"""The kill switch: wider by `freeze`, narrower by `unfreeze` alone, and it outlives a restart."""

from pathlib import Path

import pytest

from palyra_fleet.ledger import freezing, storm
from palyra_fleet.ledger.decision import Decision, EventReason, FleetFreeze
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire.freeze_models import FreezeRequest, UnfreezeRequest
from palyra_fleet.wire.view_models import ViewMessage
from tests.fakes.fleet_world import FleetWorld, WorkerPen, fleet_world, settings
from tests.fakes.ledger_world import LedgerWorld, ulid

NOW = 3_000
NOTHING = FleetFreeze(False, 0)
BY_STORM = FleetFreeze(True, 1)
LEASES = FleetFreeze(True, 1, by="alice")
EGRESS = FleetFreeze(True, 1, True, "alice")


@pytest.mark.parametrize(
    ("before", "egress", "after"),
    [
        (NOTHING, False, FleetFreeze(True, NOW, False, "bob")),
        (NOTHING, True, FleetFreeze(True, NOW, True, "bob")),
        (BY_STORM, False, FleetFreeze(True, NOW, False, "bob")),
        (LEASES, False, None),
        (LEASES, True, FleetFreeze(True, NOW, True, "bob")),
        (EGRESS, False, None),
        (EGRESS, True, None),
        # no command makes these two: the guards do not rest on that
        (FleetFreeze(False, 1, by="alice"), False, FleetFreeze(True, NOW, False, "bob")),
        (FleetFreeze(True, 1, True), False, FleetFreeze(True, NOW, True, "bob")),
    ],
)
def test_a_freeze_is_only_ever_made_wider(
    before: FleetFreeze, egress: bool, after: FleetFreeze | None
) -> None:
    world = LedgerWorld()
    world.manager.state.freeze = before
    outcome = freezing.freeze(world.manager.state, egress, "bob", "why", NOW)
    if after is None:
        assert isinstance(outcome, Refusal) and outcome.reason is FleetReason.ALREADY_FROZEN
        return
    assert isinstance(outcome, Decision) and outcome.records == (after,)
    (event,) = outcome.events
    assert event.reason is (
        EventReason.EGRESS_FROZEN if after.egress else EventReason.LEASES_FROZEN
    )
    assert (event.actor, event.detail) == ("bob", {"why": "why"})


@pytest.mark.parametrize(
    ("before", "egress_only", "after"),
    [
        (NOTHING, False, None),
        (NOTHING, True, None),
        (BY_STORM, True, None),
        (BY_STORM, False, FleetFreeze(False, NOW)),
        (LEASES, True, None),
        (LEASES, False, FleetFreeze(False, NOW)),
        (EGRESS, True, FleetFreeze(True, NOW, False, "bob")),
        (EGRESS, False, FleetFreeze(False, NOW)),
    ],
)
def test_what_is_frozen_goes_on_by_an_operator(
    before: FleetFreeze, egress_only: bool, after: FleetFreeze | None
) -> None:
    world = LedgerWorld()
    world.manager.state.freeze = before
    outcome = freezing.unfreeze(world.manager.state, egress_only, "bob", "why", NOW)
    if after is None:
        assert isinstance(outcome, Refusal) and outcome.reason is FleetReason.NOT_FROZEN
    else:
        assert isinstance(outcome, Decision) and outcome.records == (after,)


def test_a_refusal_says_how_much_is_frozen_and_by_whom() -> None:
    assert freezing.said(LEASES) == "new leases are frozen by 'alice'"
    assert freezing.said(EGRESS) == "all egress and new leases are frozen by 'alice'"


def test_a_storm_narrows_no_freeze_of_an_operator() -> None:
    world = LedgerWorld()
    world.manager.state.freeze = EGRESS
    for number in (1, 2):
        world.register(ulid(number))
    world.do(world.manager.quarantine(ulid(1), "alice", "why", NOW))
    quarantined = world.manager.quarantine(ulid(2), "alice", "why", NOW)
    assert isinstance(quarantined, Decision)
    one_a_minute = WorkerFleetPolicy(storm_quarantines_per_minute=1)
    assert storm.trip(world.manager.state, one_a_minute, quarantined) == quarantined


async def _heard(world: FleetWorld) -> ViewMessage:
    return await anext(world.service.view("proxy-1"))


async def test_frozen_egress_reaches_proxies_at_once_and_outlives_a_restart(
    tmp_path: Path,
) -> None:
    async with fleet_world(SqliteFleetStore(tmp_path / "state")) as world:
        worker = WorkerPen(ulid(101))
        await world.register(worker)
        await world.lease(worker, "run-1")
        stream = world.service.view("proxy-1")
        assert (await anext(stream)).egress_frozen is False
        await world.service.freeze("alice", FreezeRequest(reason="a way out", egress=True))
        told = await anext(stream)
        while told.kind == "tick":
            told = await anext(stream)
        assert told.kind == "freeze"
        assert "all egress" in world.service.alarms()["frozen"]
        assert world.service.health()["storm_breaker"] == "ok"
    store = SqliteFleetStore(tmp_path / "state")
    service = await FleetService.start_on(store, settings(tmp_path), world.clock)
    again = FleetWorld(service, world.clock, world.launcher, world.proxy)
    try:
        snapshot = await _heard(again)
        assert snapshot.egress_frozen and len(snapshot.bindings) == 1, "the lease is as it was"
        with pytest.raises(FleetRefusal) as caught:
            other = WorkerPen(ulid(102))
            await again.register(other)
            await again.lease(other, "run-2")
        assert caught.value.reason is FleetReason.FROZEN and "alice" in str(caught.value)
        await service.unfreeze("bob", UnfreezeRequest(reason="closed", egress_only=True))
        assert (await _heard(again)).egress_frozen is False
        with pytest.raises(FleetRefusal):
            await again.ask(other, "run-2")
        await service.unfreeze("bob", UnfreezeRequest(reason="looked at"))
        assert service.alarms() == {}
        await again.ask(other, "run-2")
    finally:
        await service.close()
