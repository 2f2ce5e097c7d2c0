"""The lanes that bytes take through the proxy, as one worker drives them, for the chaos tests.

Each lane sends one request that the policy allows and closes the connection after it, and answers
with every byte that came back after the tunnel (if any) was open. `CLOSING` asks for the
connection's end, so that a lane always ends, whether the proxy answered or cut it.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from wsproto.frame_protocol import Opcode
from wsproto.utilities import generate_accept_token

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy import master
from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import LeaseListenerSettings
from palyra_egress.proxy.doors.redirected import Address
from palyra_egress.proxy.websocket.websocket_frames import write_frame
from tests.fakes.free_port import free_port
from tests.fakes.h2_worker import NoTunnel, h2_worker
from tests.fakes.proxy_harness import (
    WORKER,
    Harness,
    Injection,
    basic,
    proxy_harness,
    read_reply,
    read_to_end,
)
from tests.fakes.socks_client import SUCCEEDED, NotWelcome, asked
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY: Final = """\
version: 1
name: chaos
rules:
  - id: api
    hosts: [api.example]
    ports: [{secure}, {impostor}]
    methods: [GET, POST]
    private: [127.0.0.0/8]
  - id: passed-on
    hosts: [tunnel.example]
    ports: [{secure}]
    tls: tunnel
    private: [127.0.0.0/8]
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [{plain}]
    methods: [GET, POST]
    private: [127.0.0.0/8]
    websocket: true
profiles:
  test: [api, passed-on, plain]
"""
HOSTS: Final = "127.0.0.1 api.example tunnel.example plain.example\n"
SOMEWHERE: Final = "203.0.113.7"
"""Where a redirected program headed for; nobody is there, and nobody asks."""
BODY: Final = b"5\r\nBODY!\r\n"
BODY_END: Final = b"0\r\n\r\n"


@dataclass
class Chaos:
    """A proxy with an upstream per kind, and what the worker's side of a lane needs."""

    harness: Harness
    plain: RecordingUpstream
    secure: RecordingUpstream
    impostor: RecordingUpstream
    ca: UpstreamCa
    listens_redirected: tuple[str, int]
    headed_for: Address | None = None
    """What the kernel would remember of the next redirected connection."""

    @property
    def roots(self) -> Path:
        """For who speaks with a server himself."""
        return self.ca.ca_file

    @property
    def worker_roots(self) -> Path:
        """For who is inspected."""
        return self.harness.proxy.enforcement.authority.root_path

    async def connect_redirected(
        self, port: int, ip: str = SOMEWHERE
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of the worker's that headed for this port of somebody, and was led here."""
        self.headed_for = Address(ip, port)
        reader, writer = await asyncio.open_connection(*self.listens_redirected)
        self.harness.streams.append(writer)
        return reader, writer

    @property
    def core(self) -> Any:
        return self.harness.core

    @property
    def upstreams(self) -> tuple[RecordingUpstream, ...]:
        return self.plain, self.secure, self.impostor

    def nothing_was_dialled(self) -> None:
        assert [upstream.connections for upstream in self.upstreams] == [0, 0, 0]
        self.nothing_was_received()

    def nothing_was_received(self) -> None:
        assert [bytes(upstream.received) for upstream in self.upstreams] == [b"", b"", b""]

    async def everything_is_closed(self) -> None:
        """Both sides of every connection end, and the proxy remembers none of them."""
        for upstream in self.upstreams:
            await upstream.wait_until_closed()
        await self.core.connections.wait_until_empty(60)
        assert len(self.core.connections) == 0


@asynccontextmanager
async def chaos(
    directory: Path,
    inject: Injection | None = None,
    violations: str = "quarantine: [metadata_target, private_target]",
    **settings: Any,
) -> AsyncIterator[Chaos]:
    ca = UpstreamCa.create(directory / "ca")
    stranger = UpstreamCa.create(directory / "stranger")
    where = ("127.0.0.1", free_port())
    listeners = LeaseListenerSettings(redirected={WORKER: where})
    settings = {"channels": ChannelSettings(lease_listeners=listeners), **settings}
    async with (
        recording_upstream() as plain,
        recording_upstream(ca.server_context("api.example", "tunnel.example")) as secure,
        recording_upstream(stranger.server_context("api.example")) as impostor,
        proxy_harness(
            directory / "proxy",
            POLICY.format(plain=plain.port, secure=secure.port, impostor=impostor.port)
            + f"violations:\n  {violations}\n",
            HOSTS,
            ca.ca_file,
            inject=inject,
            **settings,
        ) as harness,
    ):
        world = Chaos(harness, plain, secure, impostor, ca, where)
        if (own := harness.proxy.channels.lease_listeners) is not None:
            await own.follow(world.core.view.live_leases())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(master, "original_destination", lambda _sock: world.headed_for)
            yield world


def plain_head(world: Chaos, method: str, extra: str = "", path: str = "/x") -> bytes:
    authority = f"plain.example:{world.plain.port}"
    return (
        f"{method} http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n{extra}"
        f"Connection: close\r\nProxy-Authorization: {basic()}\r\n\r\n"
    ).encode()


def inner_head(authority: str, method: str, extra: str = "", path: str = "/x") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{extra}Connection: close\r\n\r\n"
    ).encode()


async def _send_plain(world: Chaos, raw: bytes) -> bytes:
    reader, writer = await world.harness.connect()
    writer.write(raw)
    got = await read_to_end(reader)
    writer.close()
    return got


async def _send_tunnelled(
    world: Chaos,
    authority: str,
    raw: bytes,
    roots: Path | None = None,
    last: bytes = b"",
) -> bytes:
    """`last` is how the answer ends where the server does not hang up after it."""
    try:
        reply, reader, writer = await world.harness.tunnel(authority, roots=roots)
    except (OSError, ssl.SSLError):
        return b""
    if reply is None:
        return b""
    if reply.status != 200:
        writer.close()
        return f"refused {reply.status}".encode()
    writer.write(raw)
    got = await read_to_end(reader, last)
    writer.close()
    return got


async def plain(world: Chaos) -> bytes:
    return await _send_plain(world, plain_head(world, "GET"))


async def plain_streamed(world: Chaos) -> bytes:
    head = plain_head(world, "POST", "Transfer-Encoding: chunked\r\n")
    return await _send_plain(world, head + BODY + BODY_END)


async def inspected(world: Chaos) -> bytes:
    authority = f"api.example:{world.secure.port}"
    return await _send_tunnelled(world, authority, inner_head(authority, "GET"))


async def inspected_streamed(world: Chaos) -> bytes:
    authority = f"api.example:{world.secure.port}"
    head = inner_head(authority, "POST", "Transfer-Encoding: chunked\r\n")
    return await _send_tunnelled(world, authority, head + BODY + BODY_END)


async def passed_on(world: Chaos) -> bytes:
    """A tunnel that is not inspected, to the server's own certificate; the worker ends it."""
    authority = f"tunnel.example:{world.secure.port}"
    return await _send_tunnelled(
        world, authority, inner_head(authority, "GET"), roots=world.roots, last=b"hello"
    )


async def _send_through_socks(
    world: Chaos, host: str, port: int, raw: bytes, roots: Path | None = None, last: bytes = b""
) -> bytes:
    """A request in a tunnel that SOCKS opened, in TLS where `roots` are given."""
    try:
        reply, (reader, writer) = await asked(world.harness, host, port)
        if reply != SUCCEEDED:
            return f"refused {reply}".encode()
        if roots is not None:
            await world.harness.shake_hands(writer, host, roots)
    except (OSError, EOFError, NotWelcome):
        return b""
    writer.write(raw)
    got = await read_to_end(reader, last)
    writer.close()
    return got


async def socks_plain(world: Chaos) -> bytes:
    port = world.plain.port
    raw = inner_head(f"plain.example:{port}", "GET")
    return await _send_through_socks(world, "plain.example", port, raw)


async def socks_inspected(world: Chaos) -> bytes:
    port = world.secure.port
    raw = inner_head(f"api.example:{port}", "GET")
    return await _send_through_socks(world, "api.example", port, raw, world.worker_roots)


async def socks_passed_on(world: Chaos) -> bytes:
    """The server hangs up when the worker does, so its answer is known by its end."""
    port = world.secure.port
    raw = inner_head(f"tunnel.example:{port}", "GET")
    return await _send_through_socks(world, "tunnel.example", port, raw, world.roots, last=b"hello")


async def _send_redirected(
    world: Chaos, host: str, port: int, roots: Path | None = None, last: bytes = b""
) -> bytes:
    """A request on a redirected connection, in TLS where `roots` are given."""
    try:
        reader, writer = await world.connect_redirected(port)
        if roots is not None:
            await world.harness.shake_hands(writer, host, roots)
    except OSError:
        return b""
    writer.write(inner_head(f"{host}:{port}", "GET"))
    got = await read_to_end(reader, last)
    writer.close()
    return got


async def redirected_plain(world: Chaos) -> bytes:
    return await _send_redirected(world, "plain.example", world.plain.port)


async def redirected_inspected(world: Chaos) -> bytes:
    return await _send_redirected(world, "api.example", world.secure.port, world.worker_roots)


async def redirected_passed_on(world: Chaos) -> bytes:
    port = world.secure.port
    return await _send_redirected(world, "tunnel.example", port, world.roots, last=b"hello")


async def _upgrade(head: bytes, writer: asyncio.StreamWriter) -> None:
    """A server that speaks WebSocket, and says hello first."""
    found = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
    accept = generate_accept_token(found[1] if found else b"").decode()
    opening = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    writer.write(opening.encode() + write_frame(Opcode.TEXT, b"hello"))


async def websocket(world: Chaos) -> bytes:
    """A WebSocket and one message each way; its opening as an answer of HTTP."""
    world.plain.respond = _upgrade
    offer = (
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    )
    reader, writer = await world.harness.connect()
    head = plain_head(world, "GET", offer)
    writer.write(head.replace(b"Connection: close", b"Connection: Upgrade"))
    reply = await read_reply(reader, has_body=lambda status: status != 101)
    if reply is None or reply.status != 101:
        writer.close()
        return b"" if reply is None else f"refused {reply.status} {reply.reason}".encode()
    writer.write(write_frame(Opcode.TEXT, b"BODY!", masked=True))
    got = await read_to_end(reader, b"hello")
    writer.close()
    return b"HTTP/1.1 200 OK\r\n\r\n" + got if got else got


async def refused_connect(world: Chaos) -> bytes:
    """A CONNECT that no rule allows."""
    return await _send_tunnelled(world, "unknown.example:443", b"")


async def untrusted_upstream(world: Chaos) -> bytes:
    """An allowed name whose server shows a certificate that nobody trusts."""
    authority = f"api.example:{world.impostor.port}"
    return await _send_tunnelled(world, authority, inner_head(authority, "GET"))


async def mute_upstream(world: Chaos) -> bytes:
    """A server that takes the request and hangs up."""

    async def hang_up(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    world.plain.respond = hang_up
    return await plain(world)


async def _send_http2(world: Chaos, method: str, body: bytes) -> bytes:
    """A stream of HTTP/2; the answer as an HTTP/1 worker would have it."""
    authority = f"api.example:{world.secure.port}"
    try:
        async with h2_worker(world.harness, authority) as worker:
            stream = worker.ask(worker.fields(method), end=not body)
            if body:
                await worker.data(stream.stream_id, body, end=True)
            await worker.answer(stream)
    except NoTunnel as refused:
        return f"refused {refused}".encode()
    except (OSError, ssl.SSLError):
        return b""
    if stream.status is None:
        return b""
    phrase = "OK" if stream.status == 200 else "refused"
    head = f"HTTP/1.1 {stream.status} {phrase}\r\n\r\n".encode()
    return head + bytes(stream.body)


async def http2(world: Chaos) -> bytes:
    return await _send_http2(world, "GET", b"")


async def http2_streamed(world: Chaos) -> bytes:
    return await _send_http2(world, "POST", b"BODY!")


type Lane = Callable[[Chaos], Awaitable[bytes]]

CARRYING: Final[tuple[Lane, ...]] = (
    plain,
    inspected,
    plain_streamed,
    inspected_streamed,
    passed_on,
    http2,
    http2_streamed,
    socks_plain,
    socks_inspected,
    socks_passed_on,
    redirected_plain,
    redirected_inspected,
    redirected_passed_on,
    websocket,
)
FAMILIES: Final[tuple[Lane, ...]] = (
    plain,
    inspected,
    http2,
    passed_on,
    socks_plain,
    redirected_plain,
    websocket,
)
"""One lane of each kind."""
