"""Attacks over real sockets that were tried by hand once, and must fail for ever.

Each test says what the attacker sends and looks at what reached the other side. A worker attacks
the proxy, the servers behind it and other workers; a server attacks the proxy and its workers.
"""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from palyra_egress.proxy.master import Door
from palyra_egress.proxy.sockets.pinned_dial import DialRefused, dial_pinned
from palyra_egress.reasons import Reason
from tests.egress.proxy.held_deadlines import held_deadlines
from tests.egress.proxy.lanes import Chaos, chaos, plain
from tests.fakes.proxy_harness import WORKER, Injection, basic, read_reply, read_to_end

POLICY_PENALTIES = "quarantine: [metadata_target, private_target, authority_mismatch]"


@pytest.fixture
async def world(tmp_path: Path):
    async with chaos(tmp_path) as world:
        yield world


def plain_head(world: Chaos, method: str = "GET", *headers: str, host: str | None = None) -> bytes:
    authority = f"plain.example:{world.plain.port}"
    lines = [
        f"{method} http://{authority}/ HTTP/1.1",
        f"Host: {host or authority}",
        f"Proxy-Authorization: {basic()}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# --- a worker smuggles a request ------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip, chunked", "gzip,chunked", "deflate, chunked"])
async def test_a_coding_that_a_server_may_not_know_is_refused(world, coding):
    """A server that only looks for `chunked` alone takes the body for a second request."""
    head = plain_head(world, "POST", f"Transfer-Encoding: {coding}")
    reply = await world.harness.send(head + b"0\r\n\r\n")
    assert reply is not None and (reply.status, reply.reason) == (400, "egress.request_malformed")
    world.nothing_was_dialled()


async def test_chunked_leaves_in_one_spelling(world):
    head = plain_head(world, "POST", "Transfer-Encoding: ChUnKeD \t")
    reply = await world.harness.send(head + b"4;ext=1\r\nabcd\r\n0\r\n\r\n")
    assert reply is not None and reply.status == 200
    assert b"\r\nTransfer-Encoding: chunked\r\n" in world.plain.received
    assert world.plain.received.endswith(b"\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")


async def test_a_client_that_waits_for_100_continue_gets_it_and_its_body_goes_through(world):
    reader, writer = await world.harness.connect()
    writer.write(plain_head(world, "POST", "Expect: 100-continue", "Content-Length: 4"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(b"abcd")
    reply = await read_reply(reader)
    assert reply is not None and (reply.status, reply.body) == (200, b"hello")
    assert world.plain.received.endswith(b"\r\n\r\nabcd")
    assert b"expect" not in world.plain.received.lower()


# --- a worker names two hosts ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_a_host_header_that_differs_costs_what_the_policy_says(tmp_path, method):
    async with chaos(tmp_path, violations=POLICY_PENALTIES) as world:
        head = plain_head(world, host="evil.example")
        if method == "CONNECT":
            head = head.replace(b"GET http://", b"CONNECT ").replace(b"/ HTTP/", b" HTTP/")
            head = head.replace(b"Host: evil.example", b"Host: evil.example:443")
        reply = await world.harness.send(head)
        assert reply is not None and reply.reason == "egress.authority_mismatch"
        (verdict,) = world.harness.verdicts()
        assert (verdict["host"], verdict["consequence"]) == ("plain.example", "quarantine")
        assert world.core.view.is_blocked(WORKER)
        world.nothing_was_dialled()


# --- a server attacks the worker ------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX: a\rTransfer-Encoding: chunked\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nX: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 5",
        b"HTTP/1.1 200 O\rK: x\r\nContent-Length: 5",
        b"HTTP/9.9 200 OK\r\nContent-Length: 5",
        b"HTTP/2.0 200 OK\r\nContent-Length: 5",
        b"HTTP/1.1 1000 OK\r\nContent-Length: 5",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
    ],
)
async def test_a_response_head_that_clients_may_read_differently_is_not_passed_on(world, head):
    """Python's http.client ends a header line at a bare CR: it would see another body length."""
    world.plain.answer = head + b"\r\n\r\nhello"
    reply = await world.harness.send(plain_head(world))
    assert reply is not None and (reply.status, reply.reason) == (502, "egress.upstream_protocol")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5",
    ],
)
async def test_an_answer_without_a_body_brings_no_body(world, head):
    world.plain.answer = head + b"\r\n\r\n"
    reader, writer = await world.harness.connect()
    writer.write(plain_head(world))
    first = await reader.readuntil(b"\r\n\r\n")
    assert first.split(b"\r\n")[0] == head.split(b"\r\n")[0]
    assert b"Transfer-Encoding" not in first and b"Content-Length" not in first
    world.plain.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecond"
    writer.write(plain_head(world))
    assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 OK\r\n")


# --- the proxy as its own target ------------------------------------------------------------------


async def test_every_socket_of_the_listener_is_a_forbidden_target(tmp_path):
    async with chaos(tmp_path, listen_host="localhost") as world:
        server = world.harness.proxy.listeners.doors[Door.HTTP]._server
        assert server is not None
        for sock in server.sockets:
            assert sock.getsockname()[:2] in world.core.service._forbidden


async def test_an_address_of_this_machine_is_not_dialled_on_a_port_open_everywhere(world):
    port = world.plain.port
    with pytest.raises(DialRefused) as refused:
        await dial_pinned(("127.0.0.1",), port, own_ports=frozenset({port}))
    assert refused.value.reason is Reason.PROXY_TARGET
    _, writer = await dial_pinned(("127.0.0.1",), port, own_ports=frozenset({port + 1}))
    writer.close()


async def test_a_listener_on_all_addresses_marks_its_port_for_the_dial(world):
    port = world.plain.port
    world.core.service.replace_forbidden(frozenset({("192.0.2.1", 1), ("0.0.0.0", port)}))
    assert world.core.service.wildcard_ports == {port}


# --- memory and time for nothing ------------------------------------------------------------------

MIB = 1 << 20
ENOUGH = 8 * MIB  # far more than kernel buffers take in, far less than would hurt


async def pour(writer: asyncio.StreamWriter, piece: bytes, most: int) -> int:
    """Send `piece` again and again until the proxy takes no more, for a second or for good."""
    sent = 0
    with contextlib.suppress(OSError, TimeoutError):
        while sent < most:
            writer.write(piece)
            async with asyncio.timeout(1):
                await writer.drain()
            sent += len(piece)
    return sent


async def say_nothing(_head: bytes, _writer: asyncio.StreamWriter) -> None:
    return


async def test_empty_lines_before_a_request_are_few(world):
    reader, writer = await world.harness.connect()
    writer.write(b"\r\n" * 8 + plain_head(world))
    reply = await read_reply(reader)
    assert reply is not None and reply.status == 200
    reader, writer = await world.harness.connect()
    writer.write(b"\r\n" * 20_000)
    reply = await read_reply(reader)
    assert reply is not None and (reply.status, reply.reason) == (400, "egress.request_malformed")


async def test_requests_piled_up_behind_an_unanswered_one_are_cut(world):
    world.plain.respond = say_nothing
    _, writer = await world.harness.connect()
    writer.write(plain_head(world))
    await world.plain.arrived.wait()
    assert await pour(writer, b"A" * MIB, ENOUGH) < ENOUGH
    await world.plain.wait_until_closed()


@pytest.mark.parametrize("framing", [b"5;", b"0\r\nX: "], ids=["chunk line", "trailer"])
async def test_a_chunk_line_or_a_trailer_without_end_is_cut(world, framing):
    _, writer = await world.harness.connect()
    writer.write(plain_head(world, "POST", "Transfer-Encoding: chunked") + framing)
    assert await pour(writer, b"a" * MIB, ENOUGH) < ENOUGH
    await world.everything_is_closed()
    assert world.harness.verdicts()[-1]["reason"] == "egress.request_malformed"


@pytest.mark.parametrize(
    "status_line",
    [
        b"HTTP/1.1 407 Proxy Authentication Required",
        b"HTTP/1.1 403 Palyra: egress.quarantined",
        b"HTTP/1.1 200 PALYRA: egress.allowed",
    ],
)
async def test_a_server_does_not_answer_in_the_proxys_words(tmp_path, status_line):
    """407 would have a client show its lease anew, or give it up; the phrase is all that many show
    of a refusal."""
    async with chaos(tmp_path) as world:
        world.plain.answer = status_line + b"\r\nContent-Length: 5\r\n\r\nhello"
        got = await plain(world)
        assert got.startswith(b"HTTP/1.1 502 Palyra: egress.upstream_protocol\r\n")
        assert b"hello" not in got


async def test_a_response_head_without_end_is_cut(world):
    poured = asyncio.get_running_loop().create_future()

    async def endless(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX: ")
        poured.set_result(await pour(writer, b"a" * MIB, ENOUGH))

    world.plain.respond = endless
    reader, writer = await world.harness.connect()
    writer.write(plain_head(world))
    assert await read_to_end(reader) == b""
    assert await poured < ENOUGH
    await world.everything_is_closed()


async def test_a_body_is_not_read_before_its_request_is_decided(world):
    decided = asyncio.Event()
    resolver = world.core.resolver

    class Slow:
        async def resolve(self, host, port, asker=""):
            await decided.wait()
            return await resolver.resolve(host, port)

        def close(self):
            resolver.close()

    world.core.resolver = Slow()
    world.plain.respond = say_nothing
    _, writer = await world.harness.connect()
    writer.write(plain_head(world, "POST", f"Content-Length: {ENOUGH}"))
    assert await pour(writer, b"@" * MIB, ENOUGH) < ENOUGH
    world.nothing_was_dialled()
    decided.set()
    async with asyncio.timeout(60):
        await writer.drain()
        await world.plain.arrived.wait()


async def test_a_client_hello_in_endless_small_records_is_given_up_on(world):
    authority = f"api.example:{world.secure.port}"
    reader, writer = await world.harness.connect()
    writer.write(
        f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    hello = b"\x01\xff\xff\xff" + bytes(1000)
    writer.write(b"".join(b"\x16\x03\x01\x00\x01" + bytes([octet]) for octet in hello))
    assert await read_to_end(reader) == b""
    await world.everything_is_closed()
    world.nothing_was_dialled()


async def test_a_connection_that_does_not_say_whose_it_is_ends(tmp_path):
    async with chaos(tmp_path, Injection(identity_deadline_s=0.1)) as world:
        reader, writer = await world.harness.connect()
        writer.write(b"GET http://plain.example/ HTTP/1.1\r\nX: slow")
        assert await read_to_end(reader) == b""


async def test_a_connection_that_said_whose_it_is_goes_on(tmp_path, monkeypatch):
    time_to_say_passes = held_deadlines(monkeypatch, 101.0)
    async with chaos(tmp_path, Injection(identity_deadline_s=101.0)) as world:
        reader, writer = await world.harness.connect()
        writer.write(plain_head(world))
        assert (await read_reply(reader)) is not None
        time_to_say_passes()
        writer.write(plain_head(world))
        reply = await read_reply(reader)
        assert reply is not None and reply.status == 200


async def test_an_origin_form_request_outside_a_tunnel_is_refused_and_audited(world):
    reply = await world.harness.send(b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n")
    assert reply is not None and (reply.status, reply.reason) == (400, "egress.request_malformed")
    assert [entry["reason"] for entry in world.harness.verdicts()] == ["egress.request_malformed"]


# --- how the process is started -------------------------------------------------------------------


def test_python_without_assertions_is_refused():
    """mitmproxy guards its protocol states with assertions; -O would drop them."""
    program = "from palyra_egress.proxy.master import Door, check_environment; check_environment()"
    ended = subprocess.run(
        [sys.executable, "-O", "-c", program], capture_output=True, check=False, timeout=60
    )
    assert ended.returncode != 0
    assert b"UnsafeEnvironment" in ended.stderr


def test_the_file_limit_leaves_room_for_what_is_ours():
    program = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 512));"
        "from palyra_egress.proxy.master import Door, room_for_connections as room;"
        "print(room(), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60
    )
    assert ended.stdout.split() == [b"192", b"512"]


async def test_a_connection_over_the_workers_limit_belongs_to_nobody(world):
    world.core.connections.max_per_worker = 0
    reader, writer = await world.harness.connect()
    writer.write(plain_head(world) + plain_head(world))
    got = await read_to_end(reader)
    assert got.count(b"HTTP/1.1 503 Palyra: egress.too_many_connections") == 1
    assert got.count(b"HTTP/1.1 ") == 1
    world.nothing_was_dialled()
