"""A resolver that says another address each time: only what was judged is dialled, by every door.

The addresses are both allowed and a server listens at both, so nothing but the pin decides where a
request arrives; and a connection that is open is used again, whatever its name resolves to by then.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.egress.proxy.http.h2_world import NAMES, http2_world
from tests.egress.proxy.lanes import Chaos, chaos, plain_head
from tests.fakes.h2_worker import NoTunnel, h2_worker
from tests.fakes.socks_client import SUCCEEDED, asked
from tests.fakes.until import until
from tests.fakes.upstream import OK, RecordingUpstream, recording_upstream

HERE: Final = ("127.0.0.1",)
ELSEWHERE: Final = ("127.0.0.2",)

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type Ask = Callable[[str], Awaitable[bytes]]
type Way = Callable[["Rebound", AsyncExitStack], Awaitable[Ask]]


class Turncoat:
    """Gives its answers one after the other, and the last one for ever."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self._answers = answers
        self.asked = 0

    async def resolve(self, _host: str, _port: int, _asker: str = "") -> tuple[str, ...]:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        return answer

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Rebound:
    """A proxy with the same two servers at two addresses."""

    world: Chaos
    plain: RecordingUpstream
    secure: RecordingUpstream

    def arrived(self) -> tuple[list[bytes], list[bytes]]:
        """The request lines that came here, and those that came elsewhere."""
        here = (self.world.plain, self.world.secure)
        return _heads(*here), _heads(self.plain, self.secure)

    def connections(self) -> tuple[int, int]:
        here = self.world.plain.connections + self.world.secure.connections
        return here, self.plain.connections + self.secure.connections

    async def no_server_is_connected(self) -> None:
        """The proxy has noticed that its servers have hung up."""
        (handler,) = self.world.core.connections._all
        await until("the server's connection is gone", lambda: not handler.open_upstreams())


def _heads(*upstreams: RecordingUpstream) -> list[bytes]:
    return [head for upstream in upstreams for head in upstream.heads]


@asynccontextmanager
async def rebound(
    directory: Path, *answers: tuple[str, ...], violations: str = "quarantine: [canary]"
) -> AsyncIterator[Rebound]:
    async with (
        chaos(directory, violations=violations) as world,
        recording_upstream(host=ELSEWHERE[0], port=world.plain.port) as plain,
        recording_upstream(
            world.ca.server_context("api.example", "tunnel.example"),
            host=ELSEWHERE[0],
            port=world.secure.port,
        ) as secure,
    ):
        world.core.resolver.close()
        world.core.resolver = Turncoat(*answers)
        yield Rebound(world, plain, secure)


# --- the ways -----------------------------------------------------------------------------------


async def _ask(streams: Streams, head: Callable[[str], bytes], path: str) -> bytes:
    reader, writer = streams
    writer.write(head(path))
    async with asyncio.timeout(60):
        return await reader.readuntil((b"hello", b"Palyra: egress."))


def _origin_form(host: str, port: int) -> Callable[[str], bytes]:
    return lambda path: f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


async def plain(it: Rebound, _stack: AsyncExitStack) -> Ask:
    def head(path: str) -> bytes:
        return plain_head(it.world, "GET", path=path).replace(b"Connection: close\r\n", b"")

    return partial(_ask, await it.world.harness.connect(), head)


async def _tunnelled(it: Rebound, host: str, roots: Path | None = None) -> Ask:
    port = it.world.secure.port
    reply, reader, writer = await it.world.harness.tunnel(f"{host}:{port}", roots=roots)
    _let_in(reply is not None and reply.status == 200)
    return partial(_ask, (reader, writer), _origin_form(host, port))


def _let_in(is_open: bool) -> None:
    if not is_open:
        raise ConnectionRefusedError


async def inspected(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _tunnelled(it, "api.example")


async def passed_on(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _tunnelled(it, "tunnel.example", it.world.roots)


async def http2(it: Rebound, stack: AsyncExitStack) -> Ask:
    authority = f"api.example:{it.world.secure.port}"
    worker = await stack.enter_async_context(h2_worker(it.world.harness, authority))

    async def ask(path: str) -> bytes:
        answer = await worker.get(path)
        return f"HTTP/1.1 {answer.status}\r\n".encode() + bytes(answer.body)

    return ask


async def _inside(
    it: Rebound, streams: Streams, host: str, port: int, roots: Path | None = None
) -> Ask:
    if roots is not None:
        await it.world.harness.shake_hands(streams[1], host, roots)
    return partial(_ask, streams, _origin_form(host, port))


async def _by_socks(it: Rebound, host: str, port: int, roots: Path | None = None) -> Ask:
    reply, streams = await asked(it.world.harness, host, port)
    _let_in(reply == SUCCEEDED)
    return await _inside(it, streams, host, port, roots)


async def socks_plain(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _by_socks(it, "plain.example", it.world.plain.port)


async def socks_inspected(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _by_socks(it, "api.example", it.world.secure.port, it.world.worker_roots)


async def socks_passed_on(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _by_socks(it, "tunnel.example", it.world.secure.port, it.world.roots)


async def _redirected(it: Rebound, host: str, port: int, roots: Path | None = None) -> Ask:
    return await _inside(it, await it.world.connect_redirected(port), host, port, roots)


async def redirected_plain(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _redirected(it, "plain.example", it.world.plain.port)


async def redirected_inspected(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _redirected(it, "api.example", it.world.secure.port, it.world.worker_roots)


async def redirected_passed_on(it: Rebound, _stack: AsyncExitStack) -> Ask:
    return await _redirected(it, "tunnel.example", it.world.secure.port, it.world.roots)


WAYS: Final[tuple[Way, ...]] = (
    plain,
    inspected,
    passed_on,
    http2,
    socks_plain,
    socks_inspected,
    socks_passed_on,
    redirected_plain,
    redirected_inspected,
    redirected_passed_on,
)
PINNED_BY_THEIR_TUNNEL: Final = tuple(
    way for way in WAYS if way not in (plain, passed_on, socks_passed_on, redirected_passed_on)
)
"""Whose requests are for the addresses of their tunnel, and may need a server's connection anew."""


async def _refused(way: Way, it: Rebound, stack: AsyncExitStack) -> bool:
    """Whether a new connection by this way carries nothing."""
    try:
        ask = await way(it, stack)
        got = await ask("/refused")
    except (OSError, asyncio.IncompleteReadError, NoTunnel):
        return True
    return not got.startswith(b"HTTP/1.1 200")


# --- what must hold -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_an_open_connection_is_used_again_and_a_new_one_goes_where_it_was_judged(
    tmp_path, way
):
    async with rebound(tmp_path, HERE, ELSEWHERE) as it, AsyncExitStack() as stack:
        first = await way(it, stack)
        for path in ("/1", "/2"):
            assert (await first(path)).startswith(b"HTTP/1.1 200")
        assert it.connections() == (1, 0)
        second = await way(it, stack)
        assert (await second("/3")).startswith(b"HTTP/1.1 200")
        assert (await first("/4")).startswith(b"HTTP/1.1 200")
        assert it.connections() == (1, 1)
        assert it.world.core.resolver.asked == 2
    here, elsewhere = it.arrived()
    assert here == [b"GET /%d HTTP/1.1" % number for number in (1, 2, 4)]
    assert elsewhere == [b"GET /3 HTTP/1.1"]


FORBIDDEN: Final = {
    "the metadata service": ("169.254.169.254",),
    "allowed and private at once": ("127.0.0.1", "10.0.0.1"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("answer", FORBIDDEN)
async def test_a_name_that_turns_to_a_forbidden_address_is_refused_and_what_is_open_goes_on(
    tmp_path, way, answer
):
    async with rebound(tmp_path, HERE, FORBIDDEN[answer]) as it, AsyncExitStack() as stack:
        first = await way(it, stack)
        assert (await first("/1")).startswith(b"HTTP/1.1 200")
        assert await _refused(way, it, stack)
        assert it.world.harness.verdicts()[-1]["effect"] == "deny"
        assert (await first("/2")).startswith(b"HTTP/1.1 200")
        assert it.connections() == (1, 0)


@pytest.mark.parametrize("way", PINNED_BY_THEIR_TUNNEL)
async def test_a_server_that_hung_up_is_dialled_again_where_the_tunnel_was_judged(tmp_path, way):
    async def hang_up(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()

    async with rebound(tmp_path, HERE, ELSEWHERE) as it, AsyncExitStack() as stack:
        it.world.plain.respond = it.world.secure.respond = hang_up
        ask = await way(it, stack)
        for connections in (1, 2):
            assert (await ask("/x")).startswith(b"HTTP/1.1 200")
            await it.no_server_is_connected()
            assert it.connections() == (connections, 0)
        assert it.world.core.resolver.asked == 1


async def test_outside_a_tunnel_a_server_that_hung_up_is_judged_anew(tmp_path):
    async def hang_up(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()

    async with rebound(tmp_path, HERE, ELSEWHERE, ("10.0.0.1",)) as it, AsyncExitStack() as stack:
        it.world.plain.respond = it.plain.respond = hang_up
        ask = await plain(it, stack)
        for connections in ((1, 0), (1, 1)):
            assert (await ask("/x")).startswith(b"HTTP/1.1 200")
            await it.no_server_is_connected()
            assert it.connections() == connections
        reply = await it.world.harness.send(plain_head(it.world, "GET"))
        assert reply is not None and reply.reason == "egress.private_target"
        assert it.connections() == (1, 1)


async def test_streams_of_http2_share_the_judged_servers_connection(tmp_path):
    """A server that speaks HTTP/2 itself: one connection, however often its name is asked for."""
    async with http2_world(tmp_path) as world:
        context: Any = world.ca.server_context(*NAMES)
        async with recording_upstream(context, ELSEWHERE[0], world.second.port) as elsewhere:
            world.harness.core.resolver = Turncoat(HERE, ELSEWHERE)
            async with world.worker() as worker:
                for _ in range(3):
                    assert (await worker.get()).status == 200
            assert (world.second.connections, elsewhere.connections) == (1, 0)
