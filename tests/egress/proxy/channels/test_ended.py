"""What is open behind a channel ends with it, although nothing asks: a tunnel, a body, a socket."""

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from palyra_egress.proxy.channels.channel import Channel, ChannelKind
from palyra_egress.proxy.channels.ended import PROCESSES_AT_A_LOOK, ChannelWatch
from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import PeerSocketSettings
from palyra_egress.proxy.connections import ConnectionTable
from palyra_egress.reasons import Reason
from tests.egress.proxy.channels.channel_world import (
    bound,
    certificate_for,
    worker_tls,
)
from tests.egress.proxy.channels.test_peer_socket import _CONNECT_AND_PASS_ON
from tests.egress.proxy.websocket.websocket_world import ACCEPT, KEY
from tests.fakes.client_hello import APPLICATION, SERVER_HELLO, hello
from tests.fakes.proxy_harness import WORKER, Harness, proxy_harness, read_reply, read_to_end
from tests.fakes.scripted_server import ScriptedServer, scripted_server

POLICY: Final = """\
version: 1
name: ended
rules:
  - {id: passed-on, hosts: [t.example], ports: [PORT], private: [127.0.0.0/8], tls: tunnel}
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [PORT]
    methods: [GET, POST]
    private: [127.0.0.0/8]
    websocket: true
profiles: {test: [passed-on, plain]}
"""
HOSTS: Final = "127.0.0.1 t.example plain.example\n"
ACCEPTED: Final = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()

type Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Held:
    """A worker's open connection, and how to end its channel."""

    harness: Harness
    server: ScriptedServer
    stream: Stream
    end: Callable[[], Awaitable[None]]


async def a_tunnel_that_is_passed_on(held: Held) -> None:
    reader, writer = held.stream
    target = f"t.example:{held.server.port}"
    held.server.answer = SERVER_HELLO
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    reply = await read_reply(reader, has_body=lambda status: status != 200)
    assert reply is not None and reply.status == 200
    writer.write(hello(b"t.example"))
    assert await reader.readexactly(len(SERVER_HELLO)) == SERVER_HELLO


async def a_body_that_comes_for_ever(held: Held) -> None:
    reader, writer = held.stream
    authority = f"plain.example:{held.server.port}"
    held.server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst"
    writer.write(f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    await reader.readuntil(b"first")


async def an_open_websocket(held: Held) -> None:
    reader, writer = held.stream
    authority = f"plain.example:{held.server.port}"
    held.server.answer = ACCEPTED
    writer.write(
        f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    reply = await read_reply(reader, has_body=lambda status: status != 101)
    assert reply is not None and reply.status == 101


OPEN: Final = (a_tunnel_that_is_passed_on, a_body_that_comes_for_ever, an_open_websocket)


@asynccontextmanager
async def by_certificate(directory: Path) -> AsyncIterator[Held]:
    """A certificate that ends when the test moves the clock."""
    async with _world(directory, worker_tls(directory)) as (harness, server):
        shown = certificate_for(directory)
        told = bound(shown.fingerprint, lives_ms=7 * 24 * 3_600_000)
        harness.tell("bind", bindings=(told,))
        where = harness.proxy.channels.worker_tls_address
        assert where is not None

        async def end() -> None:
            clocks = harness.core.clocks
            harness.core.clocks = type(clocks)(
                lambda: clocks.now_unix_ms() + 25 * 3_600_000, clocks.now_monotonic_ms
            )

        context = ssl.create_default_context(
            cafile=str(harness.proxy.enforcement.authority.root_path)
        )
        context.load_cert_chain(shown.file)
        stream = await asyncio.open_connection(*where, ssl=context, server_hostname="localhost")
        harness.streams.append(stream[1])
        yield Held(harness, server, stream, end)


@asynccontextmanager
async def by_process(directory: Path) -> AsyncIterator[Held]:
    """A process that connects, hands the connection over, and ends when the test says so."""
    path = directory / "workers.sock"
    settings = ChannelSettings(peer_socket=PeerSocketSettings(path, {os.getuid(): WORKER}))
    async with _world(directory, settings) as (harness, server):
        ours, its = socket.socketpair()
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _CONNECT_AND_PASS_ON, str(its.fileno()), str(path)),
            pass_fds=(its.fileno(),),
            stdin=asyncio.subprocess.PIPE,
        )
        its.close()
        with ours:
            _, (descriptor,), _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
        stream = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
        harness.streams.append(stream[1])

        async def end() -> None:
            assert child.stdin is not None
            child.stdin.close()
            await child.wait()

        yield Held(harness, server, stream, end)


@asynccontextmanager
async def _world(
    directory: Path, channels: ChannelSettings
) -> AsyncIterator[tuple[Harness, ScriptedServer]]:
    async with scripted_server() as server:
        policy = POLICY.replace("PORT", str(server.port))
        async with proxy_harness(directory / "proxy", policy, HOSTS, channels=channels) as harness:
            yield harness, server


WAYS: Final = {
    by_certificate: "egress.certificate_not_bound",
    by_process: "egress.identity_changed",
}


@pytest.mark.parametrize("opened", OPEN)
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_open_ends_with_its_channel(tmp_path: Path, way, opened):
    async with way(tmp_path) as held:
        await opened(held)
        await held.end()
        await read_to_end(held.stream[0])
        async with asyncio.timeout(60):
            await held.server.was_reset.wait()
        await held.harness.core.connections.wait_until_empty(60)
        (transfer,) = [e for e in held.harness.audit() if e["kind"] == "transfer"]
        assert transfer["outcome"] == WAYS[way]


async def test_a_server_that_ends_a_tunnel_inside_tls_ends_it_whole_and_loses_nothing(
    tmp_path: Path,
):
    """TLS towards the worker has no half-closed state; the end is still an end and no fault."""
    async with by_certificate(tmp_path) as held:
        await a_tunnel_that_is_passed_on(held)
        held.server.writer.write(APPLICATION)
        held.server.writer.close()
        assert await read_to_end(held.stream[0]) == APPLICATION
        await held.harness.core.connections.wait_until_empty(60)
        (transfer,) = [e for e in held.harness.audit() if e["kind"] == "transfer"]
        assert transfer["outcome"] == "complete"
        assert [e["effect"] for e in held.harness.verdicts()] == ["allow"]


# --- the watch itself ---------------------------------------------------------------------------


@dataclass(eq=False)
class FakeConnection:
    """A connection of a channel, and what was done to it."""

    channel: Channel | None
    requester: None = None
    destination: None = None
    source: str = "local"
    cut_for: list[Reason] = field(default_factory=list)

    def make_room(self) -> None:
        """There is enough."""

    def stop_sending(self, reason: Reason) -> None:
        self.cut_for.append(reason)

    def hang_up(self) -> None:
        """Nobody is there."""

    def keep_quiet(self) -> None:
        """Nobody hears of it."""

    def unwind(self) -> None:
        """Nothing runs."""

    def review(self) -> None:
        """Nothing is open."""


def _of_process(is_there: Callable[[], bool]) -> FakeConnection:
    return FakeConnection(Channel(ChannelKind.PEER, WORKER, is_unchanged=is_there))


async def test_processes_have_their_turns_and_all_of_them():
    table, asked = ConnectionTable(), list[int]()

    def is_there() -> bool:
        asked.append(1)
        return False

    made = [_of_process(is_there) for _ in range(PROCESSES_AT_A_LOOK + 3)]
    for connection in made:
        table.admit(connection, 0)
    watch = ChannelWatch(table)
    watch.cut_ended(0)
    assert len(asked) == PROCESSES_AT_A_LOOK
    watch.cut_ended(0)
    assert [connection.cut_for for connection in made] == [[Reason.IDENTITY_CHANGED]] * len(made)


async def test_a_connection_that_is_gone_is_not_looked_at_any_more():
    table = ConnectionTable()
    made = [_of_process(lambda: False) for _ in range(PROCESSES_AT_A_LOOK + 3)]
    for connection in made:
        table.admit(connection, 0)
    watch = ChannelWatch(table)
    watch.cut_ended(0)
    for connection in made:
        table.forget(connection)
    watch.cut_ended(0)
    assert sum(len(connection.cut_for) for connection in made) == PROCESSES_AT_A_LOOK


async def test_every_certificate_is_looked_at_each_time_and_what_has_no_channel_never():
    table = ConnectionTable()
    certificate = Channel(
        ChannelKind.CERTIFICATE, WORKER, certificate="0" * 64, good_until_unix_ms=5
    )
    made = [FakeConnection(certificate) for _ in range(3 * PROCESSES_AT_A_LOOK)]
    bare = FakeConnection(None)
    for connection in (*made, bare):
        table.admit(connection, 0)
    watch = ChannelWatch(table)
    watch.cut_ended(4)
    assert not any(connection.cut_for for connection in made)
    watch.cut_ended(5)
    assert all(connection.cut_for == [Reason.CERTIFICATE_NOT_BOUND] for connection in made)
    assert bare.cut_for == []
