"""The end of a connection whose other side does not read: until the last byte is taken or thrown
away it counts, and a cut reaches it; and nothing goes on to a server behind its end.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mitmproxy.connection import Connection

from palyra_egress.proxy import handler
from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.handler import EnforcingHandler
from palyra_egress.proxy.sockets.untaken import untaken_bytes
from palyra_egress.reasons import Reason
from tests.egress.proxy.lanes import Chaos, chaos, plain_head
from tests.egress.proxy.tunnels.tunnel_world import HELLO, World, open_world
from tests.fakes.until import until

PIECE = 48 * 1024  # less than what makes the proxy stop reading
CHUNK = f"{PIECE:x}\r\n".encode() + b"x" * PIECE + b"\r\n"
RECORDS = 3 * (b"\x17\x03\x03\x40\x00" + b"x" * 0x4000)  # as much, in records of TLS
LOOKS = 15


@dataclass(frozen=True)
class Way:
    """One way through the proxy. What has arrived at it, what waits in it, and what the other end
    has not taken, in bytes."""

    write: Callable[[bytes], None]
    arrived: Callable[[], int]
    unsent: Callable[[], int]
    untaken: Callable[[], int]

    @classmethod
    def to(
        cls, side: Connection, write: Callable[[bytes], None], world: Chaos, to_worker: bool
    ) -> "Way":
        connection, counted = only(world), Direction.IN if to_worker else Direction.OUT
        return cls(
            write,
            lambda: world.core.signals.counts.bytes[counted],
            lambda: connection.unsent_bytes(side),
            lambda: connection.untaken_bytes(side),
        )


async def fill(way: Way, chunk: bytes = CHUNK, counts: int = PIECE) -> int:
    """Write until some of it waits in the proxy and does not move any more; how many chunks that
    took. The next one is written when the one before has arrived and gone on."""
    looks, sent, began = deque([-1], maxlen=LOOKS), 0, way.arrived()
    async with asyncio.timeout(120):
        while not way.unsent() or looks.count(looks[-1]) < LOOKS:
            if not way.unsent() and way.arrived() == began + sent * counts:
                way.write(chunk)
                sent += 1
            await asyncio.sleep(0.01)
            looks.append(way.untaken())
    return sent


def only(world: Chaos) -> EnforcingHandler:
    (connection,) = world.core.connections._all
    return connection


@asynccontextmanager
async def unread(directory: Path) -> AsyncIterator[tuple[Chaos, socket.socket]]:
    """A worker that has its whole answer before it, and reads nothing of it."""

    async def much(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await fill(Way.to(only(world).client, writer.write, world, to_worker=True))
        writer.write(b"0\r\n\r\n")

    async with chaos(directory) as world:
        world.plain.respond = much
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            worker.connect(world.harness.proxy.address)
            worker.sendall(plain_head(world, "GET"))
            await until("the exchange is over", lambda: "transfer" in kinds(world))
            yield world, worker


def kinds(world: Chaos) -> set[str]:
    return {entry["kind"] for entry in world.harness.audit()}


async def all_of(worker: socket.socket) -> bytes:
    """What is there to read until the end or a reset."""
    worker.setblocking(False)
    got = b""
    with contextlib.suppress(OSError):
        while data := await asyncio.get_running_loop().sock_recv(worker, 1 << 20):
            got += data
    return got


async def test_a_worker_that_reads_nothing_counts_until_its_connection_is_cut(tmp_path: Path):
    async with unread(tmp_path) as (world, worker):
        await world.plain.wait_until_closed()
        assert len(world.core.connections) == 1
        world.core.connections.cut_everything(Reason.STOPPING)
        await until("it is over", lambda: not len(world.core.connections))
        assert not (await all_of(worker)).endswith(b"0\r\n\r\n")


async def test_what_a_worker_does_not_take_in_time_is_thrown_away(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(handler, "LAST_BYTES_S", 0.1)
    async with unread(tmp_path) as (world, worker):
        await until("it is over", lambda: not len(world.core.connections))
        assert not (await all_of(worker)).endswith(b"0\r\n\r\n")


@asynccontextmanager
async def complete(directory: Path) -> AsyncIterator[tuple[World, int]]:
    """A tunnel that is passed on, both of whose directions have ended, and whose server has not
    taken all of it; how many bytes the worker sent."""
    async with open_world(directory) as world:
        _, writer = await world.established()
        (connection,) = world.harness.core.connections._all
        to_server = connection._passed_on
        world.raw.writer.transport.pause_reading()
        way = Way(
            writer.write,
            lambda: world.harness.core.signals.counts.bytes[Direction.OUT],
            to_server.transport.get_write_buffer_size,
            lambda: untaken_bytes(to_server),
        )
        sent = len(HELLO) + len(RECORDS) * await fill(way, RECORDS, len(RECORDS))
        writer.write_eof()
        world.raw.writer.write_eof()
        await until("the tunnel is over", lambda: world.outcomes() == ["complete"])
        yield world, sent


async def test_a_complete_tunnel_whose_server_does_not_read_counts_until_it_is_cut(
    tmp_path: Path,
):
    async with complete(tmp_path) as (world, sent):
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(world.harness.core.connections) == 1
        world.harness.core.connections.cut_everything(Reason.STOPPING)
        await until("it is over", lambda: not len(world.harness.core.connections))
        world.raw.writer.transport.resume_reading()
        async with asyncio.timeout(60):
            await world.raw.was_reset.wait()
        assert len(world.raw.received) < sent


async def test_what_the_server_of_a_complete_tunnel_does_not_take_in_time_is_thrown_away(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(handler, "LAST_BYTES_S", 0.1)
    async with complete(tmp_path) as (world, sent):
        await until("it is over", lambda: not len(world.harness.core.connections))
        world.raw.writer.transport.resume_reading()
        async with asyncio.timeout(60):
            await world.raw.was_reset.wait()
        assert len(world.raw.received) < sent


async def test_a_server_that_reads_late_has_all_of_a_complete_tunnel_and_its_end(tmp_path: Path):
    async with complete(tmp_path) as (world, sent):
        world.raw.writer.transport.resume_reading()
        async with asyncio.timeout(60):
            await world.raw.heard_the_end.wait()
        assert len(world.raw.received) == sent
        await until("it is over", lambda: not len(world.harness.core.connections))


async def test_nothing_leaves_for_a_server_once_its_worker_has_hung_up(tmp_path: Path):
    """The proxy's own buffer holds some of the upload when the worker goes."""
    go_on = asyncio.Event()

    async def late(_head: bytes, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()

    async with chaos(tmp_path) as world:
        world.plain.respond, world.plain.reads_bodies = late, False
        _, writer = await world.harness.connect()
        writer.write(plain_head(world, "POST", "Transfer-Encoding: chunked\r\n"))
        await until("the server is asked", lambda: world.plain.heads)
        (server,) = only(world).open_upstreams()
        await fill(Way.to(server, writer.write, world, to_worker=False))
        writer.close()
        await until("it is over", lambda: not len(world.core.connections))
        go_on.set()
        await world.plain.wait_until_closed()
        (over,) = (entry for entry in world.harness.audit() if entry["kind"] == "transfer")
        assert len(world.plain.received) < over["request_bytes"]
