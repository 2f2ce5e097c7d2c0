"""One verdict, one entry in the audit log: also of a CONNECT that brings a body, and of a
connection that never says whose it is."""

import asyncio

import pytest

from palyra_egress.proxy import core
from palyra_egress.proxy.http import layers
from tests.egress.proxy.held_deadlines import held_deadlines
from tests.egress.proxy.lanes import chaos, plain_head
from tests.fakes.proxy_harness import WORKER, Injection, basic, read_reply, read_to_end

AUTHORITY = "api.example:443"
FRAMING = {
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    "no chunks": b"Transfer-Encoding: chunked\r\n\r\nno chunks at all\r\n",
    "no chunks, later": b"Transfer-Encoding: chunked\r\n\r\n",
    "length": b"Content-Length: 4\r\n\r\nbody",
    "another coding": b"Transfer-Encoding: gzip\r\n\r\nbody",
}


@pytest.mark.parametrize("framing", FRAMING.values(), ids=FRAMING.keys())
async def test_a_connect_with_a_body_is_one_refusal_and_one_entry(tmp_path, framing):
    async with chaos(tmp_path) as world:
        reader, writer = await world.harness.connect()
        head = f"CONNECT {AUTHORITY} HTTP/1.1\r\nHost: {AUTHORITY}\r\n"
        writer.write(f"{head}Proxy-Authorization: {basic()}\r\n".encode() + framing)
        got = b""
        async with asyncio.timeout(60):
            while b"egress.request_malformed" not in got:
                got += await reader.read(65536)
            writer.write(b"no chunk either\r\n")
            got += await reader.read()
        assert got.count(b"HTTP/1.1 ") == 1
        world.nothing_was_dialled()
        await world.core.connections.wait_until_empty(60)
        assert reasons(world) == ["egress.request_malformed"]


UPLOADS = {
    "length": ("Content-Length: 100\r\n", b"half"),
    "chunks": ("Transfer-Encoding: chunked\r\n", b"5\r\nhalf"),
}


@pytest.mark.parametrize("is_swept", [False, True], ids=["hangs up", "swept"])
@pytest.mark.parametrize(("framing", "body"), UPLOADS.values(), ids=UPLOADS.keys())
async def test_an_upload_that_is_cut_is_one_exchange_and_no_refusal(
    tmp_path, framing, body, is_swept
):
    async with chaos(tmp_path) as world:
        world.plain.reads_bodies = True
        _, writer = await world.harness.connect()
        writer.write(plain_head(world, "POST", framing) + body)
        async with asyncio.timeout(60):
            while not world.plain.received.endswith(b"half\r\n" if b"\r" in body else body):
                world.plain.arrived.clear()
                await world.plain.arrived.wait()
        if is_swept:
            world.harness.tell("block", worker_id=WORKER)
        else:
            writer.close()
        await world.everything_is_closed()
        assert reasons(world) == ["egress.allowed"]
        (transfer,) = [entry for entry in world.harness.audit() if entry["kind"] == "transfer"]
        assert transfer["outcome"] == ("egress.no_lease" if is_swept else "aborted")
        assert (transfer["request_bytes"], transfer["response_bytes"]) == (4, 0)


# --- connections that never say whose they are ----------------------------------------------------

SILENT = {"nothing": b"", "half a head": b"GET http://plain.exa"}
ASKED = b"POST http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 9\r\n\r\n"


def reasons(world) -> list[str]:
    return [entry["reason"] for entry in world.harness.verdicts()]


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT.keys())
async def test_a_connection_that_is_cut_without_a_request_is_in_the_log_once(tmp_path, sent):
    async with chaos(tmp_path, Injection(identity_deadline_s=0.1)) as world:
        reader, writer = await world.harness.connect()
        writer.write(sent)
        assert await read_to_end(reader) == b""
        await world.core.connections.wait_until_empty(60)
        assert reasons(world) == ["egress.no_identity"]


async def test_a_refusal_that_is_followed_by_the_cut_is_one_entry(tmp_path, monkeypatch):
    """The rest of its body is still awaited when the time is up."""
    monkeypatch.setattr(layers, "DISCARD_FOR_S", 3600.0)
    time_to_say_passes = held_deadlines(monkeypatch, 201.0)
    async with chaos(tmp_path, Injection(identity_deadline_s=201.0)) as world:
        reader, writer = await world.harness.connect()
        writer.write(ASKED)
        assert await read_reply(reader) is not None
        time_to_say_passes()
        assert await read_to_end(reader) == b""
        await world.core.connections.wait_until_empty(60)
        assert reasons(world) == ["egress.no_identity"]


async def test_silent_connections_share_the_rate_of_strangers(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "STRANGERS_PER_MINUTE", 1)
    async with chaos(tmp_path, Injection(identity_deadline_s=0.1)) as world:
        for _ in range(3):
            reader, _ = await world.harness.connect()
            assert await read_to_end(reader) == b""
        world.core.audit_unanswered()
        assert reasons(world) == ["egress.no_identity"]
        counted = [e["connections"] for e in world.harness.audit() if e["kind"] == "unanswered"]
        assert sum(counted) == 2
