"""Attacks over real sockets that were tried by hand once, and must fail for ever.

Each test says what the attacker sends and looks at what reached the other side. A worker attacks
the proxy, the servers behind it and other workers; a server attacks the proxy and its workers.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from palyra_egress.proxy.pinned_dial import DialRefused, dial_pinned
from palyra_egress.reasons import Reason
from tests.egress.proxy.lanes import Chaos, chaos
from tests.fakes.proxy_harness import WORKER, basic, read_reply, read_to_end

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
        server = world.harness.proxy.listener._server
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


# --- how the process is started -------------------------------------------------------------------


def test_python_without_assertions_is_refused():
    """mitmproxy guards its protocol states with assertions; -O would drop them."""
    program = "from palyra_egress.proxy.master import check_environment; check_environment()"
    ended = subprocess.run(
        [sys.executable, "-O", "-c", program], capture_output=True, check=False, timeout=60
    )
    assert ended.returncode != 0
    assert b"UnsafeEnvironment" in ended.stderr


async def test_a_connection_over_the_workers_limit_belongs_to_nobody(world):
    world.core.connections.max_per_worker = 0
    reader, writer = await world.harness.connect()
    writer.write(plain_head(world) + plain_head(world))
    got = await read_to_end(reader)
    assert got.count(b"HTTP/1.1 503 Palyra: egress.too_many_connections") == 1
    assert got.count(b"HTTP/1.1 ") == 1
    world.nothing_was_dialled()
    await asyncio.sleep(0)
