"""Leases through the service: one winner per grant and run, deadlines, orders, the live view."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from palyra_fleet.leases.credential import secret_sha256
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.lease_models import LeasesThat
from palyra_fleet.wire.placement_models import OrderKind
from palyra_fleet.wire.view_models import ViewMessage
from tests.fakes.fleet_world import DIRTY, FleetWorld, WorkerPen, fleet_world
from tests.fakes.ledger_world import ulid
from tests.fakes.memory_fleet_store import MemoryFleetStore

W1, W2 = ulid(1), ulid(2)


async def _workers(world: FleetWorld, count: int) -> list[WorkerPen]:
    workers = [WorkerPen(ulid(number)) for number in range(1, count + 1)]
    for worker in workers:
        await world.register(worker)
    return workers


async def _refused(awaitable: object) -> FleetReason:
    with pytest.raises(FleetRefusal) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.reason


async def test_leases_are_listed_while_they_live_and_after() -> None:
    async with fleet_world() as world:
        worker, other = WorkerPen(W1), WorkerPen(W2)
        await world.register(worker)
        await world.register(other)
        first = await world.lease(worker, "run-1")
        second = await world.lease(other, "run-2")
        world.clock.forward(10)
        await world.complete(worker, first)
        service = world.service
        (live,) = await service.leases(9)
        assert (live.lease_id, live.state) == (second.lease_id, "assigned")
        assert live.ended_at_unix_ms is None
        (ended,) = await service.leases(9, None, LeasesThat.ENDED)
        assert (ended.run_id, ended.state) == ("run-1", "completed")
        assert ended.ended_at_unix_ms == world.clock()
        both = await service.leases(9, None, LeasesThat.ALL)
        assert [one.run_id for one in both] == ["run-2", "run-1"]
        assert await service.leases(9, second.fence, LeasesThat.ALL) == (ended,)


async def test_a_run_from_grant_to_completion() -> None:
    async with fleet_world() as world:
        (worker,) = await _workers(world, 1)
        lease = await world.lease(worker, "run-1")
        command = wire.LeaseCommand(session_epoch=1, fence=lease.fence)
        started = await world.service.start_lease(W1, lease.lease_id, command)
        assert started.state == "busy"
        assert (await world.service.worker(W1)).state == "busy"
        done = await world.complete(worker, lease)
        assert done.state == "completed"
        assert (await world.service.worker(W1)).state == "available"
        assert [g.uses for g in await world.service.grants()] == [1]
        reasons = [e.reason for e in await world.service.events(0, 100)]
        assert reasons[-5:] == [
            "worker.registered",
            "grant.created",
            "worker.assigned",
            "worker.started",
            "worker.completed",
        ]
        assert await world.service.verify_events() == len(reasons)


async def test_one_of_64_workers_racing_for_one_run_wins() -> None:
    """Invariant 1: one live lease per run, a grant spent once."""
    async with fleet_world() as world:
        workers = await _workers(world, 64)
        await world.grant("run-1")
        answers = await asyncio.gather(
            *(world.ask(worker, "run-1") for worker in workers), return_exceptions=True
        )
        assert sum(isinstance(a, wire.LeaseAnswer) for a in answers) == 1
        assert sum(isinstance(a, FleetRefusal) for a in answers) == 63


async def test_of_64_grants_for_one_run_one_lease_lives() -> None:
    async with fleet_world() as world:
        workers = await _workers(world, 64)
        for _ in workers:
            await world.grant("run-1")
        answers = await asyncio.gather(
            *(world.ask(worker, "run-1") for worker in workers), return_exceptions=True
        )
        assert sum(isinstance(a, wire.LeaseAnswer) for a in answers) == 1
        assert {a.reason for a in answers if isinstance(a, FleetRefusal)} == {
            FleetReason.RUN_LEASED
        }


async def test_one_worker_asking_64_times_at_once_gets_one_lease() -> None:
    async with fleet_world() as world:
        (worker,) = await _workers(world, 1)
        for number in range(64):
            await world.grant(f"run-{number}")
        answers = await asyncio.gather(
            *(world.ask(worker, f"run-{number}") for number in range(64)), return_exceptions=True
        )
        assert sum(isinstance(a, wire.LeaseAnswer) for a in answers) == 1


async def test_an_expired_lease_is_told_and_cannot_be_completed() -> None:
    async with fleet_world() as world:
        (worker,) = await _workers(world, 1)
        lease = await world.lease(worker, "run-1", ttl_ms=10_000)
        waiting = asyncio.gather(world.service.orders(W1, 0, 60_000))
        world.clock.forward(10_000)
        await world.service.reap()
        ((order,),) = await waiting
        assert (order.kind, order.lease_id) == (OrderKind.STOP_LEASE, lease.lease_id)
        assert await _refused(world.complete(worker, lease)) is FleetReason.REATTEST_FIRST
        assert await _refused(world.lease(worker, "run-2")) is FleetReason.NO_WORKER
        await world.register(worker)
        assert (await world.lease(worker, "run-3")).fence == lease.fence + 1


async def test_a_bad_cleanup_quarantines() -> None:
    async with fleet_world() as world:
        (worker,) = await _workers(world, 1)
        lease = await world.lease(worker, "run-1")
        assert (await world.complete(worker, lease, DIRTY)).state == "cleanup_failed"
        view = await world.service.worker(W1)
        assert (view.state, view.work) == ("quarantined", "failed")
        orders = await world.service.orders(W1, 0, 0)
        assert orders[-1].kind is OrderKind.QUARANTINED


async def test_the_secret_is_shown_once_and_kept_as_a_digest() -> None:
    store = MemoryFleetStore()
    async with fleet_world(store) as world:
        (worker,) = await _workers(world, 1)
        lease = await world.lease(worker, "run-1")
        secret = lease.egress_secret
        view = world.service.view("proxy-1")
        snapshot = await anext(view)
        assert snapshot.bindings[0].egress_secret_sha256 == secret_sha256(secret)
        assert secret not in repr(lease)
        everything = repr(store.disk) + repr(await world.service.events(0, 100))
        assert secret not in everything
        digest_events = repr(await world.service.events(0, 100))
        assert secret_sha256(secret) not in digest_events
        await view.aclose()  # type: ignore[attr-defined]


async def test_withdrawing_a_grant_ends_its_lease() -> None:
    async with fleet_world() as world:
        (worker,) = await _workers(world, 1)
        lease = await world.lease(worker, "run-1")
        (grant,) = await world.service.grants()
        await world.service.withdraw_grant("alice", grant.grant_id, "changed my mind")
        assert (await world.service.worker(W1)).lease_id is None
        assert await _refused(world.complete(worker, lease)) is FleetReason.REATTEST_FIRST
        again = world.service.withdraw_grant("alice", grant.grant_id, "again")
        assert await _refused(again) is FleetReason.COMMAND_INVALID
        unknown = world.service.withdraw_grant("alice", ulid(9), "none")
        assert await _refused(unknown) is FleetReason.GRANT_UNKNOWN


async def test_the_live_leases_are_listed_newest_first_and_no_more_than_asked() -> None:
    async with fleet_world() as world:
        workers = await _workers(world, 3)
        leases = [await world.lease(worker, f"run-{n}") for n, worker in enumerate(workers)]
        command = wire.LeaseCommand(session_epoch=1, fence=leases[2].fence)
        await world.service.start_lease(workers[2].worker_id, leases[2].lease_id, command)
        await world.complete(workers[0], leases[0])
        listed = await world.service.leases(10)
        assert [(one.fence, one.state) for one in listed] == [(3, "busy"), (2, "assigned")]
        (newest,) = await world.service.leases(1)
        assert (newest.lease_id, newest.worker_id) == (leases[2].lease_id, ulid(3))
        assert (newest.run_id, newest.egress_profile) == ("run-2", "profile")
        assert newest.expires_at_unix_ms == leases[2].expires_at_unix_ms
        assert secret_sha256(leases[2].egress_secret) not in repr(listed)
        assert await world.service.leases(0) == ()
        (older,) = await world.service.leases(10, newest.fence)
        assert older.fence == 2 and await world.service.leases(10, 2) == ()


async def test_renewal_counts_from_now_is_capped_and_never_shortens() -> None:
    async with fleet_world(policy=WorkerFleetPolicy(lease_max_ms=100_000)) as world:
        (worker,) = await _workers(world, 1)
        lease = await world.lease(worker, "run-1", ttl_ms=20_000)
        start = world.clock()
        world.clock.forward(10_000)
        short = wire.LeaseCommand(session_epoch=1, fence=lease.fence, ttl_ms=1)
        state = await world.service.renew_lease(W1, lease.lease_id, short)
        assert state.expires_at_unix_ms == start + 20_000
        long = wire.LeaseCommand(session_epoch=1, fence=lease.fence)
        state = await world.service.renew_lease(W1, lease.lease_id, long)
        assert state.expires_at_unix_ms == start + 110_000
        greedy = wire.LeaseCommand(session_epoch=1, fence=lease.fence, ttl_ms=300_000)
        state = await world.service.renew_lease(W1, lease.lease_id, greedy)
        assert state.expires_at_unix_ms == start + 110_000


async def test_the_view_is_a_snapshot_then_changes_in_order() -> None:
    async with fleet_world() as world:
        (worker,) = await _workers(world, 1)
        view = world.service.view("proxy-1")
        first = await anext(view)
        assert (first.kind, first.bindings) == ("snapshot", ())
        lease = await world.lease(worker, "run-1")
        bound = await anext(view)
        assert (bound.kind, bound.bindings[0].lease_id) == ("bind", lease.lease_id)
        assert bound.highest_fence == lease.fence
        await world.service.quarantine("alice", W1, "suspicion")
        assert [(await anext(view)).kind for _ in range(2)] == ["block", "unbind"]
        again = world.service.view("proxy-1")
        snapshot = await anext(again)
        assert (snapshot.bindings, snapshot.blocked_workers) == ((), (W1,))
        assert snapshot.seq == bound.seq + 2
        for stream in (view, again):
            await stream.aclose()  # type: ignore[attr-defined]


async def test_a_quiet_view_ticks() -> None:
    async with fleet_world() as world:
        view = world.service.view("proxy-1")
        assert [(await anext(view)).kind for _ in range(2)] == ["snapshot", "tick"]
        await view.aclose()  # type: ignore[attr-defined]


async def test_a_slow_reader_is_dropped() -> None:
    async with fleet_world() as world:
        world.service._hub._max_queued = 2
        (worker,) = await _workers(world, 1)
        slow = world.service.view("proxy-1")
        await anext(slow)
        for number in range(3):
            lease = await world.lease(worker, f"run-{number}")
            await world.complete(worker, lease)
        with pytest.raises(StopAsyncIteration):
            await anext(slow)


async def test_closing_ends_streams_and_polls_and_refuses_commands() -> None:
    async with fleet_world() as world:
        (worker,) = await _workers(world, 1)
        view: AsyncIterator[ViewMessage] = world.service.view("proxy-1")
        await anext(view)
        poll = asyncio.gather(world.service.orders(W1, 0, 60_000))
        await asyncio.sleep(0)
        await world.service.close()
        assert await poll == [()]
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(view)
        assert await _refused(world.beat(worker)) is FleetReason.CLOSED
        assert world.service.health()["service"] == "closed"


async def test_what_the_store_could_not_write_did_not_happen() -> None:
    store = MemoryFleetStore()
    async with fleet_world(store) as world:
        (worker,) = await _workers(world, 1)
        await world.grant("run-1")
        store.fail_next = StoreFailed("the disk is full", ambiguous=False)
        assert await _refused(world.ask(worker, "run-1")) is FleetReason.STORE_UNAVAILABLE
        assert world.service.health()["store"] == "the disk is full"
        assert (await world.service.worker(W1)).lease_id is None
        assert (await world.ask(worker, "run-1")).fence == 1
        assert world.service.health()["store"] == "ok"


async def test_a_commit_of_unknown_outcome_ends_the_proxies_view() -> None:
    store = MemoryFleetStore()
    async with fleet_world(store) as world:
        view = world.service.view("proxy-1")
        await anext(view)
        store.fail_next = StoreFailed("cannot commit", ambiguous=True)
        assert await _refused(world.grant("run-1")) is FleetReason.STORE_UNAVAILABLE
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(view)


async def test_a_caller_that_goes_away_does_not_part_memory_and_store() -> None:
    store = MemoryFleetStore()
    async with fleet_world(store) as world:
        (worker,) = await _workers(world, 1)
        await world.grant("run-1")
        for _ in range(3):
            call = asyncio.gather(world.ask(worker, "run-1"))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await world.service.reap()
        stored = [lease for lease in store.disk.leases.values() if lease.status.live]
        view = await world.service.worker(W1)
        assert [lease.lease_id for lease in stored] == [view.lease_id]


async def test_a_storm_of_quarantines_freezes_leases_and_never_skips_one() -> None:
    policy = WorkerFleetPolicy(storm_quarantines_per_minute=2)
    async with fleet_world(policy=policy) as world:
        workers = await _workers(world, 4)
        for worker in workers[:3]:
            await world.service.quarantine("alice", worker.worker_id, "storm")
        assert await _refused(world.lease(workers[3], "run-1")) is FleetReason.STORM
        assert world.service.health()["storm_breaker"] != "ok"
        world.clock.forward(20_000)
        await world.beat(workers[3])
        await world.service.quarantine("alice", workers[3].worker_id, "one more")
        states = {view.state for view in await world.service.workers()}
        assert states == {"quarantined"}


async def test_an_approval_for_one_worker_is_no_other_workers() -> None:
    async with fleet_world() as world:
        chosen, other = WorkerPen(W1), WorkerPen(W2)
        await world.register(chosen)
        await world.register(other)
        request = wire.GrantRequest(
            run_id="run-1",
            tool_name="tool",
            principal="principal",
            egress_profile="profile",
            ttl_ms=60_000,
            worker_id=W1,
        )
        granted = await world.service.create_grant("alice", request)
        assert granted.worker_id == W1
        with pytest.raises(FleetRefusal) as caught:
            await world.ask(other, "run-1")
        assert caught.value.reason is FleetReason.NO_GRANT
        assert (await world.ask(chosen, "run-1")).worker_id == W1
        created = [e for e in await world.service.events(0, 100) if e.reason == "grant.created"]
        assert [event.worker_id for event in created] == [W1]


async def test_a_workers_own_approval_does_not_hide_the_one_for_everybody() -> None:
    async with fleet_world() as world:
        other = WorkerPen(W2)
        await world.register(other)
        request = wire.GrantRequest(
            run_id="run-1",
            tool_name="tool",
            principal="principal",
            egress_profile="profile",
            ttl_ms=60_000,
            worker_id=W1,
        )
        await world.service.create_grant("alice", request)
        lease = await world.lease(other, "run-1")  # with one for everybody
        assert lease.worker_id == W2
