"""Tunnels that are passed on, over real sockets: what opens one, what it carries, what ends it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.egress.proxy.tunnels.tunnel_world import HELLO, World, open_world
from tests.fakes.client_hello import (
    APPLICATION,
    ECH,
    GREASE_ECH,
    SERVER_HELLO,
    extension,
    hello,
    names,
)
from tests.fakes.proxy_harness import (
    read_reply,
    read_to_end,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


# --- what is carried ------------------------------------------------------------------------------


async def test_the_worker_sees_the_servers_own_certificate_and_the_proxy_counts(world):
    target = f"t.example:{world.secure.port}"
    _, reader, writer = await world.harness.tunnel(target, roots=world.roots)
    issuer = writer.get_extra_info("ssl_object").getpeercert()["issuer"]
    assert issuer == ((("commonName", "test upstream CA"),),)
    writer.write(b"PUT /not/judged HTTP/1.1\r\nHost: t.example\r\n\r\n")
    answer = await read_reply(reader)
    assert answer is not None and answer.body == b"hello"
    assert bytes(world.secure.received).startswith(b"PUT /not/judged HTTP/1.1\r\n")
    writer.close()
    await world.harness.core.connections.wait_until_empty(60)
    (connect,) = world.harness.verdicts()
    (transfer,) = [e for e in world.harness.audit() if e["kind"] == "transfer"]
    assert (connect["method"], connect["rule_id"]) == ("CONNECT", "plainly")
    assert transfer["decision_id"] == connect["decision_id"]
    assert transfer["request_bytes"] > 500 and transfer["response_bytes"] > 500


async def test_the_server_gets_the_bytes_of_the_worker_and_the_worker_those_of_the_server(world):
    reader, writer = await world.established()
    writer.write(APPLICATION)
    await world.raw.wait_for(HELLO + APPLICATION)
    world.raw.writer.write(APPLICATION * 2)
    assert await reader.readexactly(2 * len(APPLICATION)) == APPLICATION * 2


@pytest.mark.parametrize("with_connect", [b"", HELLO[:1], HELLO[:100], HELLO])
async def test_a_hello_may_come_in_any_pieces(world, with_connect):
    reader, writer = await world.open(after=with_connect)
    for byte in HELLO[len(with_connect) :]:
        writer.write(bytes([byte]))
        await writer.drain()
        for _ in range(5):  # let the proxy read this byte by itself
            await asyncio.sleep(0)
    await world.raw.wait_for(HELLO)
    assert await reader.readexactly(len(SERVER_HELLO)) == SERVER_HELLO


async def test_an_end_is_passed_on_and_the_other_direction_goes_on(world):
    reader, writer = await world.established()
    writer.write_eof()
    async with asyncio.timeout(60):
        await world.raw.heard_the_end.wait()
    world.raw.writer.write(APPLICATION)
    assert await reader.readexactly(len(APPLICATION)) == APPLICATION
    world.raw.writer.close()
    assert await read_to_end(reader) == b""
    await world.harness.core.connections.wait_until_empty(60)
    assert world.outcomes() == ["complete"]


async def test_a_server_that_does_not_read_holds_the_worker_back(tmp_path):
    async with open_world(tmp_path) as world:
        world.raw.is_reading.clear()
        _, writer = await world.open()
        writer.write(HELLO)
        sent = 0
        block = APPLICATION * 900
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    writer.write(block)
                    await writer.drain()
                    sent += len(block)
                    assert sent < 64 << 20, "the proxy takes whatever comes"
        (connection,) = world.harness.core.connections._all
        relay = connection.guard._tunnel.relay
        assert connection._passed_on.transport.get_write_buffer_size() < 1 << 20
        assert relay.request_bytes < 32 << 20


# --- what opens no tunnel -------------------------------------------------------------------------

REFUSED = [
    ("t.example", hello(b"other.example"), "authority_mismatch"),
    ("t.example", hello(b"t.example\0"), "authority_mismatch"),
    ("t.example", hello(b"t.example", names(b"other.example")), "authority_mismatch"),
    ("t.example", hello(None, names(b"t.example", b"other.example")), "authority_mismatch"),
    ("t.example", hello(None), "sni_missing"),
    ("t.example", hello(b"t.example", extension(ECH, GREASE_ECH)), "ech_not_allowed"),
    ("t.example", hello(b"t.example", offered=(0x0302,)), "protocol_not_supported"),
    ("t.example", hello(b"t.example", rest=b"\0"), "non_http_in_tunnel"),
    ("sealed.example", hello(b"inner.example", extension(ECH, b"x")), "authority_mismatch"),
    ("nameless.example", hello(b"other.example"), "authority_mismatch"),
    ("127.0.0.1", hello(b"127.0.0.1"), "authority_mismatch"),
    ("127.0.0.1", hello(b"other.example"), "authority_mismatch"),
    ("t.example", b"GET / HTTP/1.1\r\nHost: t.example\r\n\r\n", "non_http_in_tunnel"),
    ("t.example", b"SSH-2.0-client\r\n", "non_http_in_tunnel"),
    ("t.example", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "non_http_in_tunnel"),
    ("t.example", b"\x80\x2e\x01\x00\x02" + b"x" * 40, "non_http_in_tunnel"),
    ("t.example", b"\x16\x03\x01\x00\x00" * 2, "non_http_in_tunnel"),
    ("t.example", b"\x16\x03\x01\x00\x01\x01" * 40, "non_http_in_tunnel"),
    ("t.example", b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"x" * 70_000, None),
]


@pytest.mark.parametrize(("name", "sent", "reason"), REFUSED)
async def test_what_is_not_this_tunnels_hello_goes_nowhere(world, name, sent, reason):
    reader, writer = await world.open(name)
    writer.write(sent)
    assert await read_to_end(reader) == b""
    await world.harness.core.connections.wait_until_empty(60)
    assert world.raw.connections == 0
    if reason is not None:
        assert world.reasons() == ["allowed", reason]
    assert world.outcomes() == [f"egress.{world.reasons()[-1]}"]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("t.example", hello(b"T.Example")),
        ("t.example", hello(b"t.example.")),
        ("sealed.example", hello(b"sealed.example", extension(ECH, GREASE_ECH))),
        ("nameless.example", hello(None)),
        ("nameless.example", hello(b"nameless.example")),
        ("127.0.0.1", hello(None)),
    ],
)
async def test_a_hello_that_the_rule_accepts_is_passed_on_as_it_came(world, name, sent):
    reader, writer = await world.open(name)
    writer.write(sent)
    await world.raw.wait_for(sent)
    assert await reader.readexactly(len(SERVER_HELLO)) == SERVER_HELLO


async def test_a_worker_that_says_nothing_after_its_connect_is_cut(tmp_path):
    async with open_world(tmp_path, hello_s=0.05) as world:
        reader, _ = await world.open()
        assert await read_to_end(reader) == b""
        assert world.raw.connections == 0
        assert world.outcomes() == ["no_client_hello"]


async def test_a_hello_that_does_not_end_in_time_is_cut(tmp_path):
    async with open_world(tmp_path, hello_s=0.05) as world:
        reader, writer = await world.open()
        writer.write(HELLO[:50])
        assert await read_to_end(reader) == b""
        assert world.raw.connections == 0


async def test_an_inspected_tunnel_also_has_a_deadline_for_its_hello(tmp_path):
    async with open_world(tmp_path, hello_s=0.05) as world:
        reply, reader, _ = await world.harness.connect_to(f"seen.example:{world.secure.port}")
        assert reply is not None and reply.status == 200
        assert await read_to_end(reader) == b""


async def test_a_rule_may_accept_an_inspected_tunnel_without_a_server_name(world):
    target = f"seen.example:{world.secure.port}"
    _, reader, writer = await world.harness.tunnel(target, sni=None)
    writer.write(f"GET / HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answer = await read_reply(reader)
    assert answer is not None and answer.status == 200


async def test_a_server_that_cannot_be_reached_ends_the_tunnel(world):
    reply, reader, writer = await world.harness.connect_to("t.example:9")
    assert reply is not None and reply.status == 200
    writer.write(HELLO)
    assert await read_to_end(reader) == b""
    await world.harness.core.connections.wait_until_empty(60)
    assert world.outcomes() == ["egress.upstream_unreachable"]
