"""Placing through the service: what a worker is told, the lease it takes, what is forgotten."""

from pathlib import Path

import pytest

from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.signals.metrics import exposition
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.placement_models import (
    DeclineRequest,
    OfferModel,
    OfferState,
    OfferView,
    OrderKind,
    PlaceRequest,
)
from tests.fakes.fleet_world import SCOPE, FleetWorld, WorkerPen, fleet_world, settings
from tests.fakes.ledger_world import ulid
from tests.fakes.memory_fleet_store import MemoryFleetStore

W1, W2 = ulid(1), ulid(2)


async def _waiting(world: FleetWorld, worker_id: str = W1) -> WorkerPen:
    worker = WorkerPen(worker_id)
    await world.register(worker)
    await _waits(world, worker)
    return worker


async def _waits(world: FleetWorld, worker: WorkerPen) -> None:
    worker.beats += 1
    beat = wire.HeartbeatRequest(session_epoch=worker.session_epoch, seq=worker.beats, waits=True)
    await world.service.heartbeat(worker.worker_id, beat)


async def _place(world: FleetWorld, run_id: str = "run-1") -> OfferView:
    return await world.service.place("alice", PlaceRequest(run_id=run_id, ttl_ms=60_000))


def _taking(worker: WorkerPen, offer: OfferModel) -> wire.LeaseRequest:
    return wire.LeaseRequest(
        session_epoch=worker.session_epoch,
        run_id=offer.run_id,
        ttl_ms=offer.ttl_ms,
        required_capabilities=offer.required_capabilities,
        workspace_scope=SCOPE,
        artifact_transport=offer.artifact_transport,
        offer_id=offer.offer_id,
    )


async def test_a_worker_that_waits_is_told_takes_the_lease_and_works() -> None:
    async with fleet_world(MemoryFleetStore()) as world:
        worker = await _waiting(world)
        await world.grant("run-1")
        placed = await _place(world)
        (order,) = await world.service.orders(W1, 0, 0)
        assert order.kind is OrderKind.OFFERED
        assert order.offer is not None
        assert order.offer.model_dump() == placed.model_dump(exclude={"state", "lease_id"})
        assert await world.service.offers() == (placed,)
        lease = await world.service.request_lease(W1, _taking(worker, order.offer))
        assert (lease.run_id, lease.worker_id) == ("run-1", W1)
        taken = await world.service.offer(placed.offer_id)
        assert (taken.state, taken.lease_id) == (OfferState.TAKEN, lease.lease_id)
        assert await world.service.offers() == ()


async def test_an_approval_is_spent_by_taking_and_not_by_placing() -> None:
    async with fleet_world(MemoryFleetStore()) as world:
        worker = await _waiting(world)
        first = await world.grant("run-1")
        second = await world.grant("run-1")
        asked = PlaceRequest(run_id="run-1", ttl_ms=60_000, grant_id=second.grant_id)
        offer = await world.service.place("alice", asked)
        assert {grant.uses for grant in await world.service.grants()} == {0}
        await world.service.request_lease(W1, _taking(worker, offer))
        uses = {grant.grant_id: grant.uses for grant in await world.service.grants()}
        assert uses == {first.grant_id: 0, second.grant_id: 1}


async def test_what_is_declined_or_lapses_goes_to_the_next_and_is_counted() -> None:
    async with fleet_world(MemoryFleetStore()) as world:
        workers = {W1: await _waiting(world, W1), W2: await _waiting(world, W2)}
        await world.grant("run-1")
        first = await _place(world)
        decline = DeclineRequest(
            session_epoch=workers[first.worker_id].session_epoch, reason="no room"
        )
        await world.service.decline_offer(first.worker_id, first.offer_id, decline)
        second = await _place(world)
        assert {first.worker_id, second.worker_id} == {W1, W2}
        world.clock.forward(10_000)
        await world.service.reap()
        states = [(await world.service.offer(one.offer_id)).state for one in (first, second)]
        assert states == [OfferState.DECLINED, OfferState.LAPSED]
        with pytest.raises(FleetRefusal) as caught:
            await _place(world)
        assert caught.value.reason is FleetReason.NO_WORKER
        shown = exposition(world.service.counts, world.service.standing()).decode()
        assert 'palyra_fleet_offers_total{became="made"} 2.0' in shown
        assert 'palyra_fleet_offers_total{became="declined"} 1.0' in shown
        assert 'palyra_fleet_offers_total{became="lapsed"} 1.0' in shown
        assert "palyra_fleet_workers_waiting 0.0" in shown


async def test_an_offer_that_nobody_knows_is_refused() -> None:
    async with fleet_world(MemoryFleetStore()) as world:
        with pytest.raises(FleetRefusal) as caught:
            await world.service.offer(ulid(77))
        assert caught.value.reason is FleetReason.OFFER_UNKNOWN


async def test_a_restart_forgets_offers_and_keeps_what_was_learnt_of_workers(
    tmp_path: Path,
) -> None:
    async with fleet_world(SqliteFleetStore(tmp_path), WorkerFleetPolicy()) as world:
        worker = await _waiting(world)
        await world.grant("run-1")
        offer = await _place(world)
        decline = DeclineRequest(session_epoch=worker.session_epoch, reason="no room")
        await world.service.decline_offer(W1, offer.offer_id, decline)
        await _waits(world, worker)
        open_one = await _place(world)
        clock, kept = world.clock, world.service._manager.state.workers[W1]
    assert kept.recent_outcomes == 1
    service = await FleetService.start(settings(tmp_path, WorkerFleetPolicy()), clock)
    try:
        assert service._manager.state.workers[W1] == kept
        assert await service.offers() == ()
        with pytest.raises(FleetRefusal) as caught:
            await service.request_lease(W1, _taking(worker, open_one))
        assert caught.value.reason in {FleetReason.OFFER_ENDED, FleetReason.BINDING_STALE}
        again = FleetWorld(service, clock)
        await _waits(again, worker)
        assert (await _place(again)).worker_id == W1
        reasons = [event.reason for event in await service.events(0, 100)]
        assert reasons.count("worker.offered") == 3
        assert await service.verify_events() > 0
    finally:
        await service.close()
