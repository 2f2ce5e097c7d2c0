"""Redirected connections: what they say decides, the address they headed for is only written down.

The connections here are made to the listener, and the destination that the kernel would remember is
told by the test; `test_redirect` does the same with netfilter.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from palyra_egress.policy.load import load_policy
from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.doors.transparent_layer import ACCESS_DENIED
from tests.egress.proxy.lanes import SOMEWHERE, Chaos, chaos, inner_head
from tests.fakes.client_hello import hello, names
from tests.fakes.proxy_harness import WORKER, Injection, read_reply, read_to_end


@dataclass
class Redirected:
    """A proxy with a redirected listener for one worker."""

    world: Chaos

    async def connect(
        self, port: int, ip: str = SOMEWHERE
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self.world.connect_redirected(port, ip)

    def reasons(self) -> list[str]:
        return [e["reason"].removeprefix("egress.") for e in self.world.harness.verdicts()]


@asynccontextmanager
async def redirected(directory: Path, inject: Injection | None = None) -> AsyncIterator[Redirected]:
    async with chaos(directory, inject) as world:
        yield Redirected(world)


@pytest.fixture
async def way(tmp_path):
    async with redirected(tmp_path) as made:
        yield made


# --- what is carried ------------------------------------------------------------------------------


async def test_plain_http_goes_where_its_host_says(way):
    port = way.world.plain.port
    reader, writer = await way.connect(port)
    writer.write(inner_head(f"plain.example:{port}", "GET"))
    assert (await read_to_end(reader)).endswith(b"hello")
    assert way.world.plain.heads == [b"GET /x HTTP/1.1"]
    tunnel, inner = way.world.harness.verdicts()
    assert tunnel["target"] == f"http://plain.example:{port}"
    for entry in (tunnel, inner):
        assert entry["worker_id"] == WORKER
        assert entry["headed_for"] == f"{SOMEWHERE}:{port}"
        assert entry["addresses"] == ["127.0.0.1"]


async def test_tls_goes_where_its_server_name_says_and_is_inspected(way):
    port = way.world.secure.port
    reader, writer = await way.connect(port)
    await way.world.harness.shake_hands(writer, "api.example")
    writer.write(inner_head(f"api.example:{port}", "GET"))
    assert (await read_to_end(reader)).endswith(b"hello")
    assert way.world.secure.heads == [b"GET /x HTTP/1.1"]


async def test_tls_is_passed_on_where_the_rule_says_so(way):
    port = way.world.secure.port
    reader, writer = await way.connect(port)
    await way.world.harness.shake_hands(writer, "tunnel.example", way.world.roots)
    writer.write(inner_head(f"tunnel.example:{port}", "GET"))
    assert (await read_to_end(reader, b"hello")).endswith(b"hello")


async def test_the_first_bytes_may_come_one_by_one(way):
    port = way.world.plain.port
    reader, writer = await way.connect(port)
    for byte in b"\r\n" + inner_head(f"plain.example:{port}", "GET"):
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await read_to_end(reader)).endswith(b"hello")
    assert way.world.plain.heads == [b"GET /x HTTP/1.1"]


async def test_each_request_of_a_connection_is_judged(way):
    port = way.world.plain.port
    reader, writer = await way.connect(port)
    for method, path, status in (("GET", "/x", 200), ("DELETE", "/x", 403), ("GET", "/y", 200)):
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: plain.example:{port}\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        reply = await read_reply(reader)
        assert reply is not None and reply.status == status
    assert way.world.plain.heads == [b"GET /x HTTP/1.1", b"GET /y HTTP/1.1"]


# --- what is refused ------------------------------------------------------------------------------


async def test_a_refused_host_is_answered_and_never_looked_up(way):
    reader, writer = await way.connect(80)
    writer.write(b"GET / HTTP/1.1\r\nHost: paste.example\r\n\r\n")
    reply = await read_reply(reader)
    assert reply is not None
    assert (reply.status, reply.reason) == (403, "egress.host_not_allowed")
    assert way.world.harness.verdicts()[-1]["addresses"] == []
    way.world.nothing_was_dialled()


async def test_a_refused_server_name_is_answered_with_an_alert(way):
    reader, writer = await way.connect(443)
    writer.write(hello(b"paste.example"))
    assert await read_to_end(reader) == ACCESS_DENIED
    assert way.reasons() == ["host_not_allowed"]
    way.world.nothing_was_dialled()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (hello(None), "private_target"),  # for the address it headed for, which no rule names
        (hello(b"127.0.0.1"), "private_target"),
        (hello(b"169.254.169.254"), "metadata_target"),
        (hello(b"2130706433"), "numeric_host"),
        (hello(b"api.example\0.x"), "host_malformed"),
        (hello(b"\xff"), "host_malformed"),
        (hello(b"api.example", names(b"paste.example")), "authority_mismatch"),
        (hello(None, names(b"api.example", b"paste.example")), "authority_mismatch"),
    ],
)
async def test_a_client_hello_that_names_no_allowed_server_is_refused(way, sent, reason):
    reader, writer = await way.connect(443)
    writer.write(sent)
    assert await read_to_end(reader) in (ACCESS_DENIED, b"")  # a reset may overtake the alert
    assert way.reasons() == [reason]
    way.world.nothing_was_dialled()


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("GET / HTTP/1.1\r\n\r\n", "host_missing"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", "request_malformed"),
        ("GET / HTTP/1.1\r\nHost: plain.example:81\r\n\r\n", "authority_mismatch"),
        ("GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", "metadata_target"),
        ("GET / HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", "numeric_host"),
        ("GET / HTTP/1.1\r\nHost: user@plain.example\r\n\r\n", "url_credentials"),
        ("CONNECT api.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", "protocol_not_supported"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "request_malformed"),
        ("GET / HTTP/1.1\nHost: plain.example\n\n", "request_malformed"),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "request_malformed"),
    ],
)
async def test_a_head_that_names_no_allowed_host_is_answered(way, head, reason):
    reader, writer = await way.connect(80)
    writer.write(head.encode())
    reply = await read_reply(reader)
    assert reply is not None and reply.reason == f"egress.{reason}"
    assert way.reasons() == [reason]
    way.world.nothing_was_dialled()


async def test_another_host_on_the_same_connection_is_a_mismatch(way):
    port = way.world.plain.port
    reader, writer = await way.connect(port)
    writer.write(f"GET /x HTTP/1.1\r\nHost: plain.example:{port}\r\n\r\n".encode())
    assert await read_reply(reader) is not None
    writer.write(f"GET /x HTTP/1.1\r\nHost: other.example:{port}\r\n\r\n".encode())
    reply = await read_reply(reader)
    assert reply is not None and reply.reason == "egress.authority_mismatch"
    assert way.world.plain.heads == [b"GET /x HTTP/1.1"]


async def test_absolute_form_names_no_other_server(way):
    port = way.world.plain.port
    reader, writer = await way.connect(port)
    writer.write(
        f"GET http://other.example/ HTTP/1.1\r\nHost: plain.example:{port}\r\n\r\n".encode()
    )
    reply = await read_reply(reader)
    assert reply is not None and reply.reason == "egress.authority_mismatch"
    way.world.nothing_was_dialled()


@pytest.mark.parametrize("sent", [b"\x05\x01\x02", b"\x00\x01\x02", b"\x80\x00", b"\x16\x02\x00"])
async def test_raw_bytes_are_no_protocol_that_is_carried(way, sent):
    reader, writer = await way.connect(443)
    writer.write(sent)
    assert await read_to_end(reader) == b""
    assert way.reasons() == ["protocol_not_supported"]
    assert way.world.harness.verdicts()[-1]["worker_id"] == WORKER
    way.world.nothing_was_dialled()


async def test_an_endless_head_and_an_endless_hello_are_given_up(way):
    reader, writer = await way.connect(80)
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000)
    assert (await read_to_end(reader)).startswith(b"HTTP/1.1 431 ")
    reader, writer = await way.connect(443)
    writer.write(b"\x16\x03\x01\x00\x01\x01" * 40)
    assert await read_to_end(reader) == ACCESS_DENIED
    assert way.reasons() == ["head_too_large", "request_malformed"]


async def test_who_speaks_to_the_listener_itself_is_refused(way):
    reader, writer = await way.connect(80)
    writer.close()
    way.world.headed_for = None
    reader, writer = await asyncio.open_connection(*way.world.listens_redirected)
    writer.write(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
    assert await read_to_end(reader) == b""
    entry = way.world.harness.verdicts()[-1]
    assert (entry["reason"], entry["worker_id"]) == ("egress.proxy_target", WORKER)
    writer.close()


async def test_a_program_that_says_nothing_is_cut_off(tmp_path):
    inject = Injection(deadlines=Deadlines(target_s=0.1))
    async with redirected(tmp_path, inject) as way:
        reader, _ = await way.connect(80)
        assert await read_to_end(reader) == b""
        assert way.reasons() == ["deadline"]


# --- whose it is ----------------------------------------------------------------------------------


async def test_a_quarantined_worker_is_refused_and_its_open_connections_are_cut(way):
    port = way.world.plain.port
    open_reader, open_writer = await way.connect(port)
    open_writer.write(f"GET /x HTTP/1.1\r\nHost: plain.example:{port}\r\n\r\n".encode())
    assert await read_reply(open_reader) is not None
    late_reader, late_writer = await way.connect(port)
    way.world.harness.tell("block", worker_id=WORKER)
    assert await read_to_end(open_reader) == b""
    late_writer.write(inner_head(f"plain.example:{port}", "GET"))
    reply = await read_reply(late_reader)
    assert reply is None or reply.reason == "egress.quarantined"
    assert way.world.plain.heads == [b"GET /x HTTP/1.1"]


async def test_without_a_lease_nobody_listens(way):
    way.world.harness.tell("snapshot", bindings=())
    await way.world.harness.proxy.channels.lease_listeners.follow({})
    with pytest.raises(ConnectionRefusedError):
        await way.connect(80)


LITERAL: Final = """
  - id: literal
    hosts: [127.0.0.1]
    ports: [{port}]
    private: [127.0.0.0/8]
profiles:
  test: [literal, """


async def test_an_address_is_judged_as_an_address(way):
    """A ClientHello without a name, for an address that a rule names."""
    core, port = way.world.core, way.world.secure.port
    text = way.world.harness.proxy.enforcement.settings.policy_file.read_text()
    changed = text.replace("\nprofiles:\n  test: [", LITERAL.format(port=port))
    core.service.replace_policy(load_policy(changed.encode(), "policy.yaml"))
    _, writer = await way.connect(port, "127.0.0.1")
    await way.world.harness.shake_hands(writer, None)  # the worker's side is answered by the proxy
    assert way.world.harness.verdicts()[-1]["target"] == f"127.0.0.1:{port}"
    assert way.world.secure.connections == 0
