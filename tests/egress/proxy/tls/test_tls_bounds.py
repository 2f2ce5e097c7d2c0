"""TLS that carries nothing: a flood of key updates ends the connection of whoever floods."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.tls.tls_bounds import FREE_BYTES
from tests.egress.proxy.lanes import Chaos, chaos
from tests.fakes.proxy_harness import proxy_harness, read_reply, read_to_end
from tests.fakes.tls13_records import HandmadeTls
from tests.fakes.upstream import OK

KEY_UPDATE_BYTES = 27
TOO_MANY = 2 * FREE_BYTES // KEY_UPDATE_BYTES


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Chaos]:
    async with chaos(tmp_path) as made:
        yield made


async def _worker(
    world: Chaos, directory: Path
) -> tuple[HandmadeTls, asyncio.StreamReader, asyncio.StreamWriter]:
    """A worker inside an inspected tunnel."""
    target = f"api.example:{world.secure.port}"
    reply, reader, writer = await world.harness.connect_to(target)
    assert reply is not None and reply.status == 200
    context = ssl.create_default_context(cafile=str(world.worker_roots))
    tls = HandmadeTls(context, directory / "keys", "api.example")
    await tls.shake_hands(reader, writer)
    return tls, reader, writer


def _head(world: Chaos, length: int) -> bytes:
    authority = f"api.example:{world.secure.port}"
    return f"POST /x HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\n\r\n".encode()


async def test_a_worker_that_updates_its_key_for_ever_is_cut(world, tmp_path):
    tls, reader, writer = await _worker(world, tmp_path)
    writer.write(tls.key_updates(TOO_MANY))
    await read_to_end(reader)
    await world.everything_is_closed()
    assert world.harness.verdicts()[-1]["reason"] == "egress.request_malformed"
    world.nothing_was_dialled()


async def test_a_key_is_updated_now_and_then(world, tmp_path):
    tls, _, writer = await _worker(world, tmp_path)
    for part in (_head(world, 2), b"o", b"k"):
        writer.write(tls.key_updates(20) + tls.data(part, 1 << 14))
    async with asyncio.timeout(60):
        while not bytes(world.secure.received).endswith(b"ok"):
            world.secure.arrived.clear()
            await world.secure.arrived.wait()


async def test_a_byte_in_each_record_is_carried(world, tmp_path):
    """As small as records are, what comes out of them pays for them."""
    tls, _, writer = await _worker(world, tmp_path)
    world.secure.reads_bodies = True
    body = b"b" * (FREE_BYTES // 16)
    writer.write(tls.data(_head(world, len(body)), 1 << 14) + tls.data(body, 1))
    async with asyncio.timeout(60):
        while not bytes(world.secure.received).endswith(body):
            world.secure.arrived.clear()
            await world.secure.arrived.wait()


@asynccontextmanager
async def flooding_server(ca: UpstreamCa, keys: Path) -> AsyncIterator[int]:
    """Updates its key for ever, and then answers; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = HandmadeTls(ca.server_context("api.example"), keys)
        try:
            await tls.shake_hands(reader, writer)
            writer.write(tls.key_updates(TOO_MANY) + tls.data(OK, 1 << 14))
            await reader.read()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_server_that_updates_its_key_for_ever_is_cut(tmp_path):
    ca = UpstreamCa.create(tmp_path / "ca")
    async with flooding_server(ca, tmp_path / "keys") as port:
        policy = (
            "version: 1\nname: flood\n"
            f"rules: [{{id: api, hosts: [api.example], ports: [{port}], private: [127.0.0.0/8]}}]\n"
            "profiles: {test: [api]}\n"
        )
        async with proxy_harness(
            tmp_path / "proxy", policy, "127.0.0.1 api.example\n", ca.ca_file
        ) as harness:
            authority = f"api.example:{port}"
            _, reader, writer = await harness.tunnel(authority)
            writer.write(f"GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            reply = await read_reply(reader)
            assert reply is None or reply.status == 502
            await harness.core.connections.wait_until_empty(60)
            (transfer,) = [e for e in harness.audit() if e["kind"] == "transfer"]
            assert transfer["outcome"] == "egress.upstream_protocol"
