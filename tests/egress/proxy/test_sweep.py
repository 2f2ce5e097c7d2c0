"""A sweep over many connections of one worker: every socket first, everything else after."""

import asyncio
import contextlib
import itertools
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.proxy import events

from palyra_egress.proxy.bindings import Ended
from palyra_egress.proxy.clocks import Clocks
from palyra_egress.proxy.core import REFUSALS_PER_MINUTE, SLOWED_REFUSAL_S
from palyra_egress.proxy.handler import EnforcingHandler
from palyra_egress.reasons import Reason
from tests.egress.proxy.lanes import BODY, Chaos, chaos, plain, plain_head
from tests.fakes.proxy_harness import (
    OTHER_LEASE,
    OTHER_SECRET,
    OTHER_WORKER,
    WORKER,
    basic,
    read_reply,
)

CONNECTIONS = 24


class _Looking:
    """Notes every event that the protocol layers of some connections get, and how many sockets of
    all of them are connected at that moment."""

    def __init__(self, handlers: Iterable[EnforcingHandler]) -> None:
        self.handlers = list(handlers)
        self.seen: list[tuple[str, int]] = []
        for handler in self.handlers:
            handler.layer.handle_event = self._noting(handler.layer.handle_event)

    def _noting(self, handle: Callable[[events.Event], Any]) -> Callable[[events.Event], Any]:
        def handle_noted(event: events.Event) -> Any:
            self.seen.append((type(event).__name__, self.connected()))
            return handle(event)

        return handle_noted

    def connected(self) -> int:
        """A socket that was reset has no peer any more, open or closed."""
        return sum(
            has_peer(writer.get_extra_info("socket"))
            for handler in self.handlers
            for writer in handler._writers()
        )


def has_peer(sock: TransportSocket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def _open_upload(world: Chaos) -> asyncio.StreamReader:
    """A worker's connection in the middle of an upload that its server has begun to get."""
    reader, writer = await world.harness.connect()
    writer.write(plain_head(world, "POST", "Transfer-Encoding: chunked\r\n") + BODY)
    return reader


async def _until_uploads_arrive(world: Chaos) -> None:
    async with asyncio.timeout(60):
        while bytes(world.plain.received).count(b"BODY!") < CONNECTIONS:
            world.plain.arrived.clear()
            await world.plain.arrived.wait()


async def test_every_socket_of_a_swept_worker_is_reset_before_the_first_is_unwound(tmp_path: Path):
    async def say_nothing(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        pass

    async with chaos(tmp_path) as world:
        world.plain.respond = say_nothing
        readers = [await _open_upload(world) for _ in range(CONNECTIONS)]
        await _until_uploads_arrive(world)
        looking = _Looking(world.core.connections._by_worker[WORKER])
        assert looking.connected() == 2 * CONNECTIONS
        assert world.core.connections.cut(Ended(worker_ids=frozenset({WORKER}))) == CONNECTIONS
        async with asyncio.timeout(60):
            for reader in readers:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        await world.everything_is_closed()
    closings = [still_open for kind, still_open in looking.seen if kind == "ConnectionClosed"]
    assert closings == [0] * 2 * CONNECTIONS


@pytest.mark.parametrize("waits", [b"", b"x" * (8 << 20)], ids=["idle", "backed up"])
async def test_a_swept_connection_is_woken_in_its_turn_and_not_by_its_sockets(
    tmp_path: Path, waits: bytes
):
    async def say_nothing(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        pass

    async with chaos(tmp_path) as world:
        world.plain.respond = say_nothing
        for _ in range(CONNECTIONS):
            await _open_upload(world)
        await _until_uploads_arrive(world)
        handlers = list(world.core.connections._by_worker[WORKER])
        readers = [io.reader for handler in handlers for io in handler.transports.values()]
        for writer in (writer for handler in handlers for writer in handler._writers()):
            writer.write(waits)
        world.core.connections.cut(Ended(worker_ids=frozenset({WORKER})))
        woken: list[int] = []
        async with asyncio.timeout(60):
            while not all(reader.at_eof() for reader in readers):
                woken.append(sum(reader.at_eof() for reader in readers))
                await asyncio.sleep(0)
        await world.everything_is_closed()
    steps = [after - before for before, after in itertools.pairwise(woken)]
    assert max(steps) <= 2  # both sides of one connection in each pass
    assert sum(steps) >= 2 * (CONNECTIONS - 1)


async def test_the_others_are_served_while_a_sweep_is_unwound(tmp_path: Path):
    async with chaos(tmp_path) as world:
        for _ in range(CONNECTIONS):
            reader, writer = await world.harness.connect()
            authority = f"plain.example:{world.plain.port}"
            credential = basic()
            writer.write(
                f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
                f"Proxy-Authorization: {credential}\r\n\r\n".encode()
            )
            assert (await read_reply(reader)) is not None
        world.core.connections.cut(Ended(worker_ids=frozenset({OTHER_WORKER, WORKER})))
        assert (await plain(world)).endswith(b"hello")


async def test_what_was_read_before_the_cut_is_not_looked_at_after_it(tmp_path: Path):
    """The worker's next chunk lies in the proxy's buffer, unread, when its connection is cut."""
    async with chaos(tmp_path) as world:
        reader = await _open_upload(world)
        async with asyncio.timeout(60):
            while b"BODY!" not in bytes(world.plain.received):
                world.plain.arrived.clear()
                await world.plain.arrived.wait()
        (handler,) = world.core.connections._by_worker[WORKER]
        looking = _Looking([handler])
        before = len(world.plain.received)
        handler.transports[handler.client].reader.feed_data(b"7\r\nTOO LATE\r\n")
        handler.abort(Reason.QUARANTINED)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        await world.everything_is_closed()
        assert "ConnectionClosed" in {kind for kind, _ in looking.seen}
        assert "DataReceived" not in {kind for kind, _ in looking.seen}
        assert len(world.plain.received) == before


OUTSIDE_THE_JUDGE = "Connection: upgrade\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize(
    ("more", "reason"),
    [("", "egress.host_not_allowed"), (OUTSIDE_THE_JUDGE, "egress.upgrade_not_allowed")],
)
async def test_a_worker_that_is_refused_all_the_time_waits_and_the_others_do_not(
    tmp_path: Path, more: str, reason: str
):
    async with chaos(tmp_path) as world:
        paused: list[float] = []

        async def pause(seconds: float) -> None:
            paused.append(seconds)

        world.core.pause = pause
        frozen = world.core.clocks.now_monotonic_ms()
        world.core.clocks = Clocks(world.core.clocks.now_unix_ms, lambda: frozen)
        reader, writer = await world.harness.connect()
        refused = (
            "GET http://nobody.example/ HTTP/1.1\r\nHost: nobody.example\r\n"
            f"{more}Proxy-Authorization: {basic()}\r\n\r\n"
        ).encode()
        for _ in range(REFUSALS_PER_MINUTE + 5):
            writer.write(refused)
            reply = await read_reply(reader)
            assert reply is not None and reply.reason == reason
        assert paused == [SLOWED_REFUSAL_S] * 5
        before = len(paused)
        assert (await plain(world)).endswith(b"hello")
        other = refused.replace(basic().encode(), basic(OTHER_LEASE, OTHER_SECRET).encode())
        reply = await world.harness.send(other)
        assert reply is not None and reply.status == 403
        assert len(paused) == before


async def test_frozen_egress_cuts_what_is_open_and_refuses_with_its_own_reason(tmp_path: Path):
    async def say_nothing(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        pass

    async with chaos(tmp_path) as world:
        respond, world.plain.respond = world.plain.respond, say_nothing
        readers = [await _open_upload(world) for _ in range(CONNECTIONS)]
        await _until_uploads_arrive(world)
        world.harness.tell("freeze")
        async with asyncio.timeout(60):
            for reader in readers:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        await world.everything_is_closed()
        before = bytes(world.plain.received)
        refused = await world.harness.send(plain_head(world, "GET"))
        assert refused is not None and refused.status == 503
        assert refused.reason == Reason.EGRESS_FROZEN.value
        assert bytes(world.plain.received) == before
        world.plain.respond = respond
        world.harness.tell("thaw")
        assert (await plain(world)).endswith(b"hello")
