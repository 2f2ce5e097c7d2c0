"""Shares of a pass of the loop: one worker's many reads, or dear ones, do not make it long."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mitmproxy.proxy.events import DataReceived

from palyra_egress.proxy.bounds.metering import metered
from palyra_egress.proxy.bounds.shares import LEAST_BYTES, SHARE_BYTES, SHARE_S, Shares
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_fleet.tasks import spawn
from tests.egress.proxy.lanes import BODY, Chaos, chaos, plain, plain_head
from tests.fakes.proxy_harness import WORKER, Injection

CONNECTIONS = 8


@contextlib.asynccontextmanager
async def readers(shares: Shares, owner: str, costs: list[int]) -> AsyncIterator[list[int]]:
    """Tasks that each take a share of a worker, in this order; which of them have had it."""
    had: list[int] = []

    async def take(number: int, cost: int) -> None:
        await shares.take(owner, cost)
        had.append(number)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number, cost in enumerate(costs):
            group.create_task(take(number, cost))
        yield had


async def passes(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_many_reads_of_one_worker_take_many_passes_in_their_order():
    shares, count = Shares(), 6 * SHARE_BYTES // LEAST_BYTES
    per_pass, before = [], 0
    async with readers(shares, "a", [1] * count) as had:
        while len(had) < count:
            await asyncio.sleep(0)
            per_pass.append(len(had) - before)
            before = len(had)
    assert max(per_pass) <= SHARE_BYTES // LEAST_BYTES
    assert had == list(range(count))


async def test_another_worker_does_not_wait_for_those_that_do():
    shares = Shares()
    async with readers(shares, "a", [SHARE_BYTES] * 50) as had:
        await passes(3)
        await shares.take("b", SHARE_BYTES)
        assert len(had) < 50


async def test_one_read_is_let_through_however_much_it_is():
    async with readers(Shares(), "a", [100 * SHARE_BYTES]) as had:
        await passes(1)
        assert had == [0]


@pytest.mark.parametrize(("shares_taken", "waits"), [(1, 1), (11, 11)])
async def test_what_took_long_is_owed(shares_taken, waits):
    shares = Shares()
    await shares.take("a", SHARE_BYTES)
    shares.charge("a", shares_taken * SHARE_S)
    count = 0
    async with readers(shares, "a", [1]) as had:
        while not had:
            count += 1
            await asyncio.sleep(0)
    assert waits <= count <= waits + 3


async def test_who_waits_no_more_is_passed_over_and_nobody_is_remembered_for_long():
    shares = Shares()
    await shares.take("a", SHARE_BYTES)
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(shares.take("a", SHARE_BYTES))
        stays = group.create_task(shares.take("a", SHARE_BYTES))
        await passes(1)
        gone.cancel()
        async with asyncio.timeout(60):
            await stays
    await passes(3)
    assert len(shares) == 0


async def _uploading(world: Chaos) -> list[asyncio.StreamWriter]:
    """Connections of one worker, each in the middle of an upload that has arrived."""
    writers = []
    for _ in range(CONNECTIONS):
        _, writer = await world.harness.connect()
        writer.write(plain_head(world, "POST", "Transfer-Encoding: chunked\r\n") + BODY)
        writers.append(writer)
    async with asyncio.timeout(60):
        while bytes(world.plain.received).count(b"BODY!") < CONNECTIONS:
            world.plain.arrived.clear()
            await world.plain.arrived.wait()
    return writers


async def test_uploads_in_the_smallest_chunks_leave_the_others_their_turns(tmp_path: Path):
    """Over real sockets: all that one worker's connections send at once is not taken in one pass,
    arrives whole, and in few chunks."""

    async def say_nothing(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        pass

    async with chaos(tmp_path) as world:
        answer, world.plain.respond = world.plain.respond, say_nothing
        writers = await _uploading(world)
        world.plain.respond = answer
        now, handled = 0, Counter[int]()
        for handler in world.core.connections._by_worker[WORKER]:
            handle = handler.layer.handle_event

            def noted(event, handle=handle, handler=handler):
                if isinstance(event, DataReceived) and event.connection is handler.client:
                    handled[now] += len(event.data)
                return handle(event)

            handler.layer.handle_event = noted
        small = b"1\r\n~\r\n" * 10_000
        for writer in writers:
            writer.write(small)
        async with asyncio.timeout(60):
            while sum(handled.values()) < CONNECTIONS * len(small):
                await asyncio.sleep(0)
                now += 1
            while bytes(world.plain.received).count(b"~") < CONNECTIONS * 10_000:
                world.plain.arrived.clear()
                await world.plain.arrived.wait()
        assert (await plain(world)).endswith(b"hello")
        for writer in writers:
            writer.close()
    assert max(handled.values()) <= 2 * SHARE_BYTES
    assert bytes(world.plain.received).count(b"\r\n") < CONNECTIONS * 100


# --- decisions ------------------------------------------------------------------------------------


async def test_what_a_decision_takes_of_the_processor_is_charged_to_its_worker(
    tmp_path: Path, monkeypatch
):
    class Slow(ConnectionGuard):
        async def requestheaders(self, flow):
            await asyncio.sleep(0)  # what others do meanwhile is not charged
            until_s = time.thread_time() + 20 * SHARE_S
            while time.thread_time() < until_s:
                pass
            await super().requestheaders(flow)

    longest: dict[str, float] = {}
    charges = Shares.charge

    def noted(self, owner: str, took_s: float) -> None:
        longest[owner] = max(longest.get(owner, 0.0), took_s)
        charges(self, owner, took_s)

    monkeypatch.setattr(Shares, "charge", noted)
    async with chaos(tmp_path, Injection(guard_class=Slow)) as world:
        assert b"200 OK" in await plain(world)
    assert longest[WORKER] >= 20 * SHARE_S


async def test_a_metered_coroutine_is_timed_without_what_it_waits_for_and_hears_what_is_thrown():
    steps: list[float] = []

    async def works() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "ended in order"
        return "not ended"

    async def waits() -> str:
        return await metered(works(), steps.append)

    task = spawn(waits(), "works")
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "ended in order"
    assert len(steps) == 3

    async def fails() -> None:
        raise RuntimeError("injected")

    with pytest.raises(RuntimeError, match="injected"):
        await metered(fails(), steps.append)
    assert len(steps) == 4
