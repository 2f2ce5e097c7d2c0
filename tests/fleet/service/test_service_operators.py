"""Operators' commands: the way into quarantine and the long way out, bans, drains, restarts."""

from pathlib import Path

import pytest

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.placement_models import OrderKind
from tests.fakes.fleet_world import DIRTY, Clock, FleetWorld, WorkerPen, fleet_world, settings
from tests.fakes.ledger_world import ulid

W1, W2 = ulid(1), ulid(2)


async def _refused(awaitable: object) -> FleetReason:
    with pytest.raises(FleetRefusal) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.reason


async def _quarantined(world: FleetWorld) -> WorkerPen:
    worker = WorkerPen(W1)
    await world.register(worker)
    await world.service.quarantine("alice", W1, "suspicion")
    return worker


async def test_leaving_quarantine_takes_operator_newer_evidence_and_new_key() -> None:
    """Invariant 4."""
    async with fleet_world() as world:
        worker = await _quarantined(world)
        service = world.service
        early = await _refused(service.release("alice", W1, "looks fine"))
        assert early is FleetReason.RELEASE_NEEDS_EVIDENCE
        assert (await world.register(worker)).state == "quarantined"
        same_key = await _refused(service.release("alice", W1, "looks fine"))
        assert same_key is FleetReason.RELEASE_NEEDS_KEY
        fresh = WorkerPen(W1)
        assert (await world.register(fresh)).state == "quarantined"
        caller = service.caller_by_key(fresh.key.thumbprint)
        assert caller is not None
        assert caller.public_key == fresh.key.public_key
        view = await service.release("alice", W1, "rebuilt the image")
        assert (view.state, view.key_sha256) == ("available", fresh.key.thumbprint)
        assert service.caller_by_key(worker.key.thumbprint) is None
        retired = await _refused(world.register(WorkerPen(W1, worker.key)))
        assert retired is FleetReason.WORKER_BANNED
        assert await _refused(service.release("alice", W1, "x")) is FleetReason.NOT_QUARANTINED


async def test_evidence_from_before_a_second_quarantine_does_not_count() -> None:
    async with fleet_world() as world:
        await _quarantined(world)
        await world.register(WorkerPen(W1))
        await world.service.quarantine("bob", W1, "once more")
        refused = await _refused(world.service.release("alice", W1, "looks fine"))
        assert refused is FleetReason.RELEASE_NEEDS_EVIDENCE


async def test_candidate_evidence_that_ran_out_does_not_release() -> None:
    async with fleet_world() as world:
        await _quarantined(world)
        await world.register(WorkerPen(W1))
        world.clock.forward(world.service._settings.policy.binding_max_age_ms)
        refused = await _refused(world.service.release("alice", W1, "looks fine"))
        assert refused is FleetReason.RELEASE_NEEDS_EVIDENCE


async def test_failed_work_needs_newer_evidence_and_a_reverification() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        await world.complete(worker, lease, DIRTY)
        quarantined = await _refused(world.service.reverify("alice", W1, "looked at it"))
        assert quarantined is FleetReason.WORKER_QUARANTINED
        await world.register(WorkerPen(W1))
        assert (await world.service.release("alice", W1, "rebuilt")).state == "failed"
        assert (await world.service.reverify("alice", W1, "looked")).state == "available"
        again = await _refused(world.service.reverify("alice", W1, "looked"))
        assert again is FleetReason.COMMAND_INVALID


async def test_the_quarantined_may_only_beat_and_attest() -> None:
    """Invariant 3."""
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        await world.service.quarantine("alice", W1, "suspicion")
        command = wire.LeaseCommand(session_epoch=1, fence=lease.fence)
        service = world.service
        for call in (
            service.start_lease(W1, lease.lease_id, command),
            service.renew_lease(W1, lease.lease_id, command),
            world.complete(worker, lease),
            world.lease(worker, "run-2"),
        ):
            assert await _refused(call) is FleetReason.WORKER_QUARANTINED
        assert (await world.beat(worker)).state == "quarantined"
        refused = await _refused(service.evict("alice", W1, "away with it"))
        assert refused is FleetReason.WORKER_QUARANTINED


async def test_a_ban_sticks_to_id_key_and_identity() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        view = await world.service.ban("alice", W1, "stole secrets")
        assert (view.state, view.admission) == ("quarantined", "banned")
        for pen, changes in (
            (WorkerPen(W1), {"evidence_identity": "new"}),
            (WorkerPen(W2, worker.key), {"evidence_identity": "new"}),
            (WorkerPen(W2), {"evidence_identity": f"unit-{W1}"}),
        ):
            call = world.service.register(await world.registration(pen, **changes))
            assert await _refused(call) is FleetReason.WORKER_BANNED
        for call in (
            world.service.release("alice", W1, "x"),
            world.service.evict("alice", W1, "x"),
            world.service.uncordon("alice", W1, "x"),
            world.beat(worker),
        ):
            assert await _refused(call) is FleetReason.WORKER_BANNED


async def test_an_evicted_worker_is_forgotten_and_may_come_back() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        leased = await _refused(world.service.evict("alice", W1, "gone"))
        assert leased is FleetReason.WORKER_LEASED
        await world.complete(worker, lease)
        assert (await world.service.evict("alice", W1, "gone")).worker_id == W1
        assert await _refused(world.service.worker(W1)) is FleetReason.WORKER_UNKNOWN
        assert await _refused(world.service.orders(W1, 0, 0)) is FleetReason.WORKER_UNKNOWN
        assert world.service.caller_by_key(worker.key.thumbprint) is None
        assert (await world.register(worker)).session_epoch == 1


async def test_eligibility_is_changed_on_request_only() -> None:
    """Invariant 7."""
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        await world.service.drain("alice", W1, "upgrade", 60_000)
        await world.beat(worker, lease)
        await world.complete(worker, lease)
        await world.register(worker)
        assert (await world.service.worker(W1)).eligibility == "draining"
        assert await _refused(world.lease(worker, "run-2")) is FleetReason.DRAINING
        await world.service.cordon("alice", W1, "wait")
        assert await _refused(world.ask(worker, "run-2")) is FleetReason.DRAINING
        assert (await world.service.uncordon("alice", W1, "done")).state == "available"
        assert (await world.ask(worker, "run-2")).run_id == "run-2"


async def test_a_drain_deadline_ends_the_lease_that_is_left() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        await world.service.drain("alice", W1, "upgrade", 5_000)
        world.clock.forward(4_999)
        await world.service.reap()
        assert (await world.service.worker(W1)).lease_id == lease.lease_id
        world.clock.forward(1)
        await world.service.reap()
        view = await world.service.worker(W1)
        assert (view.lease_id, view.work, view.state) == (None, "orphaned", "orphaned")


async def test_an_operator_revokes_a_lease() -> None:
    async with fleet_world() as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        state = await world.service.revoke_lease("alice", lease.lease_id, "enough")
        assert state.state == "revoked"
        again = await _refused(world.service.revoke_lease("alice", lease.lease_id, "enough"))
        assert again is FleetReason.LEASE_UNKNOWN


async def test_a_restart_loses_nothing_and_grows_epoch_and_fence(tmp_path: Path) -> None:
    clock = Clock()
    place = settings(tmp_path / "state")
    world = FleetWorld(await FleetService.start(place, clock), clock)
    await world.enrol()
    free, caught = WorkerPen(W1), WorkerPen(W2)
    for worker in (free, caught):
        await world.register(worker)
    lease = await world.lease(free, "run-1")
    other = await world.lease(caught, "run-2")
    envelope = world.proxy.violation(other, clock())
    await world.service.accept_violation("proxy-1", envelope)
    before = (await world.service.workers(), await world.service.grants(), world.service.epoch)
    await world.service.close()

    clock.forward(1)
    world.service = await FleetService.start(place, clock)
    assert (await world.service.workers(), await world.service.grants()) == before[:2]
    assert world.service.epoch == before[2] + 1
    again = await world.service.accept_violation("proxy-1", envelope)
    assert (again.outcome, again.duplicate) == ("quarantined", True)
    view = world.service.view("proxy-1")
    snapshot = await anext(view)
    assert [b.lease_id for b in snapshot.bindings] == [lease.lease_id]
    assert snapshot.blocked_workers == (W2,)
    assert snapshot.highest_fence == 2
    await view.aclose()  # type: ignore[attr-defined]
    await world.complete(free, lease)
    assert await _refused(world.lease(free, "run-3")) is FleetReason.BINDING_STALE
    await world.service.proxy_beat("proxy-1", wire.ProxyBeat(spooled_seq=1, policy_digest="policy"))
    assert (await world.ask(free, "run-3")).fence == 3
    assert await world.service.verify_events() > 0
    await world.service.close()


async def test_unusable_state_refuses_to_start_with_what_to_do(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "fleet.marker").touch()
    with pytest.raises(FleetRefusal, match="restore the file from a backup") as caught:
        await FleetService.start(FleetSettings(state), Clock())
    assert caught.value.reason is FleetReason.STATE_UNUSABLE


async def test_the_reaper_settles_deadlines_by_itself(tmp_path: Path) -> None:
    clock = Clock()
    service = await FleetService.start(FleetSettings(tmp_path / "s", reap_every_ms=1), clock)
    world = FleetWorld(service, clock)
    await world.enrol()
    await world.register(WorkerPen(W1))
    poll = service.orders(W1, 0, 60_000)
    await world.lease(WorkerPen(W1, session_epoch=1), "run-1", ttl_ms=1_000)
    clock.forward(1_000)
    (order,) = await poll
    assert order.kind is OrderKind.STOP_LEASE
    assert service.health() == dict.fromkeys(service.health(), "ok")
    await service.close()
    await service.close()
