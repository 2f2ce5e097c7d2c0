"""A real WebSocket client and a real server, inside inspected TLS, and a socket through SOCKS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from aiohttp import web

from palyra_egress.demo.upstream_ca import UpstreamCa
from tests.egress.proxy.websocket.websocket_world import ClientSide, World, open_world
from tests.fakes.proxy_harness import LEASE, SECRET, Harness, proxy_harness, read_reply
from tests.fakes.socks_client import SUCCEEDED, asked

POLICY: Final = """\
version: 1
name: clients
rules:
  - id: sockets
    hosts: [api.example]
    ports: [{port}]
    paths: [/socket, /wrong]
    private: [127.0.0.0/8]
    websocket: true
  - {{id: none, hosts: [none.example], ports: [{port}], private: [127.0.0.0/8]}}
profiles: {{test: [sockets, none]}}
canaries: [{{id: decoy, value: AKIADECOY4QX7RZM2WTP}}]
"""
HOSTS: Final = "127.0.0.1 api.example none.example\n"


class Echo:
    """A server that says back what it hears, compressing where it may."""

    def __init__(self) -> None:
        self.port = 0
        self.was_compressed: list[bool] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        self.was_compressed.append(bool(socket.compress))
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


@asynccontextmanager
async def echo_server(context: ssl.SSLContext) -> AsyncIterator[Echo]:
    echo = Echo()
    application = web.Application()
    application.router.add_get("/socket", echo.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    echo.port = runner.addresses[0][1]
    try:
        yield echo
    finally:
        await runner.cleanup()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[Harness, Echo]]:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with (
        echo_server(ca.server_context("api.example", "none.example")) as echo,
        proxy_harness(
            tmp_path / "proxy", POLICY.format(port=echo.port), HOSTS, ca.ca_file
        ) as harness,
    ):
        yield harness, echo


def connect(session: aiohttp.ClientSession, harness: Harness, url: str):
    host, port = harness.proxy.address
    root = harness.proxy.enforcement.authority.root_path
    return session.ws_connect(
        url,
        proxy=f"http://{LEASE}:{SECRET}@{host}:{port}",
        ssl=ssl.create_default_context(cafile=str(root)),
        protocols=("chat",),
        compress=15,
    )


async def test_aiohttp_talks_with_a_real_server_inside_inspected_tls(place):
    harness, echo = place
    async with aiohttp.ClientSession() as session:
        url = f"wss://api.example:{echo.port}/socket"
        async with connect(session, harness, url) as socket:
            assert socket.protocol == "chat"
            for text in ("hello", "é and 𝄞", "", "x" * 200_000):
                await socket.send_str(text)
                assert (await socket.receive(timeout=60)).data == text
            await socket.send_bytes(bytes(range(256)) * 100)
            assert (await socket.receive(timeout=60)).data == bytes(range(256)) * 100
            await socket.ping(b"there?")
            await socket.close(code=1000, message=b"done")
            assert socket.close_code == 1000
    assert echo.was_compressed == [False]
    verdicts = harness.verdicts()
    assert [entry["effect"] for entry in verdicts] == ["allow", "allow"]
    assert verdicts[1]["target"] == f"wss://api.example:{echo.port}/socket"
    async with asyncio.timeout(60):
        await harness.core.connections.wait_until_empty(60)
    (transfer,) = [entry for entry in harness.audit() if entry["kind"] == "transfer"]
    assert transfer["outcome"] == "complete"
    assert transfer["request_frames"] >= 7


@pytest.mark.parametrize(
    ("host", "path", "status"), [("none.example", "/socket", 403), ("api.example", "/wrong", 404)]
)
async def test_aiohttp_sees_why_there_is_no_socket(place, host, path, status):
    harness, echo = place
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(session, harness, f"wss://{host}:{echo.port}{path}"):
                pass
    assert refused.value.status == status
    assert echo.was_compressed == []


async def test_a_canary_that_aiohttp_sends_ends_its_socket(place):
    harness, echo = place
    async with (
        aiohttp.ClientSession() as session,
        connect(session, harness, f"wss://api.example:{echo.port}/socket") as socket,
    ):
        await socket.send_json({"key": "AKIADECOY4QX7RZM2WTP"})
        message = await socket.receive(timeout=60)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert harness.verdicts()[-1]["reason"] == "egress.canary"


async def test_a_socket_through_socks(tmp_path):
    async with open_world(tmp_path) as world:
        socket = await _through_socks(world)
        socket.send_raw(b"\x81\x82\x00\x00\x00\x00hi")
        await world.server.wait_for(lambda server: server.got == b"hi")
        targets = [entry["target"] for entry in world.harness.verdicts()]
        authority = f"ws.example:{world.server.port}"
        assert targets == [f"http://{authority}", f"ws://{authority}/socket"]


async def _through_socks(world: World) -> ClientSide:
    code, (reader, writer) = await asked(world.harness, "ws.example", world.server.port)
    assert code == SUCCEEDED
    absolute = f"http://ws.example:{world.server.port}".encode()
    writer.write(world.head().replace(absolute, b"", 1))
    reply = await read_reply(reader, has_body=lambda status: status != 101)
    assert reply is not None and reply.status == 101
    return ClientSide(reader, writer)
