"""The end of a connection whose other side does not read: until the last byte is taken or thrown
away it counts, and a cut reaches it; and nothing goes on to a server behind its end.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from mitmproxy.connection import Connection

from palyra_egress.proxy import handler
from palyra_egress.proxy.handler import EnforcingHandler
from palyra_egress.reasons import Reason
from tests.egress.proxy.lanes import Chaos, chaos, plain_head
from tests.fakes.until import until

PIECE = 48 * 1024  # less than what makes the proxy stop reading
CHUNK = f"{PIECE:x}\r\n".encode() + b"x" * PIECE + b"\r\n"
LOOKS = 15


async def fill(write: Callable[[bytes], None], connection: EnforcingHandler, side: Connection):
    """Write until some of it waits in the proxy for this side, and does not move any more."""
    looks = deque([-1], maxlen=LOOKS)
    async with asyncio.timeout(60):
        while not connection.unsent_bytes(side) or looks.count(looks[-1]) < LOOKS:
            if not connection.unsent_bytes(side):
                write(CHUNK)
            await asyncio.sleep(0.01)
            looks.append(connection.untaken_bytes(side))


def only(world: Chaos) -> EnforcingHandler:
    (connection,) = world.core.connections._all
    return connection


@asynccontextmanager
async def unread(directory: Path) -> AsyncIterator[tuple[Chaos, socket.socket]]:
    """A worker that has its whole answer before it, and reads nothing of it."""

    async def much(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await fill(writer.write, only(world), only(world).client)
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
        await fill(writer.write, only(world), server)
        writer.close()
        await until("it is over", lambda: not len(world.core.connections))
        go_on.set()
        await world.plain.wait_until_closed()
        (over,) = (entry for entry in world.harness.audit() if entry["kind"] == "transfer")
        assert len(world.plain.received) < over["request_bytes"]
