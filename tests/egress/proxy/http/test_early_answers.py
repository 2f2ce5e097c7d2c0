"""A server of HTTP/1 that answers before the upload is complete: its worker reads the whole answer,
then the end, and no reset; nothing more of the upload reaches the server, and what is thrown away
is bounded and costs the worker's hours.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from mitmproxy.proxy import events

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.http import layers
from palyra_egress.proxy.sockets.pinned_dial import dial_pinned
from palyra_fleet.tasks import spawn
from tests.egress.proxy.http.test_http2_clients import door, needed, ran, root
from tests.fakes.proxy_harness import Harness, Injection, basic, proxy_harness, read_reply
from tests.fakes.tls13_records import HandmadeTls

POLICY = """\
version: 1
name: early
rules:
  - id: api
    hosts: [api.example]
    ports: [{secure}]
    methods: [GET, POST, PUT]
    private: [127.0.0.0/8]
  - id: plain
    hosts: [plain.example]
    schemes: [http]
    ports: [{plain}]
    methods: [GET, POST, PUT]
    private: [127.0.0.0/8]
profiles:
  test: [api, plain]
{budgets}
"""
HOSTS = "127.0.0.1 api.example plain.example\n"
MUCH = b"B" * (4 << 20)
ONE_READ = 65535
REFUSED = b"HTTP/1.1 413 Too Much\r\nContent-Length: 9\r\n\r\ntoo much\n"
CHUNKED = b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwho?\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@dataclass
class EarlyServer:
    """Answers each request as soon as its head is there, and then does what its name says."""

    then: str = "reads on"
    answer: bytes = REFUSED
    port: int = 0
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            self.received += await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            await writer.drain()
            match self.then:
                case "reads on":
                    while data := await reader.read(65536):
                        self.received += data
                case "stands still":
                    writer.transport.pause_reading()  # type: ignore[attr-defined]
                    await asyncio.Event().wait()
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.ended.set()


@asynccontextmanager
async def early_server(context: ssl.SSLContext | None = None) -> AsyncIterator[EarlyServer]:
    made = EarlyServer()
    tasks: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await made.serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class World:
    harness: Harness
    plain: EarlyServer
    secure: EarlyServer

    def both(self, **what: object) -> None:
        for server in (self.plain, self.secure):
            for name, value in what.items():
                setattr(server, name, value)


@asynccontextmanager
async def early_world(
    directory: Path, budgets: str = "", inject: Injection | None = None
) -> AsyncIterator[World]:
    ca = UpstreamCa.create(directory / "ca")
    async with (
        early_server() as plain,
        early_server(ca.server_context("api.example")) as secure,
        proxy_harness(
            directory / "proxy",
            POLICY.format(plain=plain.port, secure=secure.port, budgets=budgets),
            HOSTS,
            ca.ca_file,
            inject=inject,
        ) as harness,
    ):
        yield World(harness, plain, secure)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(layers, "DISCARD_FOR_S", 0.2)


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    async with early_world(tmp_path) as made:
        yield made


type Lane = Callable[[World], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]]]


async def in_the_clear(world: World):
    """A connection, and how a request on it begins."""
    reader, writer = await world.harness.connect()
    authority = f"plain.example:{world.plain.port}"
    head = f"http://{authority}/up HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: {basic()}"
    return reader, writer, head.encode() + b"\r\n"


async def inspected(world: World):
    authority = f"api.example:{world.secure.port}"
    _, reader, writer = await world.harness.tunnel(authority)
    return reader, writer, f"/up HTTP/1.1\r\nHost: {authority}\r\n".encode()


LANES = pytest.mark.parametrize("lane", [in_the_clear, inspected], ids=["clear", "inspected"])


def transfers(world: World) -> list[tuple[str, int]]:
    entries = [entry for entry in world.harness.audit() if entry["kind"] == "transfer"]
    return [(entry["outcome"], entry["request_bytes"]) for entry in entries]


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end. A reset fails."""
    async with asyncio.timeout(60):
        return await reader.read()


# --- the answer -----------------------------------------------------------------------------------


@LANES
@pytest.mark.parametrize("then", ["reads on", "stands still", "hangs up"])
@pytest.mark.parametrize("answer", [REFUSED, CHUNKED], ids=["length", "chunks"])
async def test_a_worker_that_uploads_reads_the_whole_answer_and_the_end(world, lane, then, answer):
    world.both(then=then, answer=answer)
    reader, writer, begin = await lane(world)
    writer.write(b"POST " + begin + f"Content-Length: {len(MUCH)}\r\n\r\n".encode() + MUCH)
    assert await everything(reader) == answer
    await world.harness.core.connections.wait_until_empty(60)
    assert [outcome for outcome, _ in transfers(world)] == ["complete"]
    assert {entry["reason"] for entry in world.harness.verdicts()} == {"egress.allowed"}


@LANES
async def test_a_worker_whose_upload_is_refused_reads_why_and_the_end(world, lane):
    reader, writer, begin = await lane(world)
    writer.write(b"DELETE " + begin + f"Content-Length: {len(MUCH)}\r\n\r\n".encode() + MUCH)
    got = await everything(reader)
    assert got.startswith(b"HTTP/1.1 403 ")
    assert b"egress.method_not_allowed" in got
    assert world.plain.connections + world.secure.connections == 0


@LANES
async def test_nothing_of_the_body_reaches_the_server_behind_its_answer(world, lane):
    reader, writer, begin = await lane(world)
    writer.write(b"POST " + begin + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    reply = await read_reply(reader)
    assert reply is not None
    assert reply.status == 413
    for server in (world.plain, world.secure):
        if server.connections:
            await server.ended.wait()
    writer.write(b"3\r\ndef\r\n0\r\n\r\nGET " + begin + b"\r\n")
    assert await everything(reader) == b""
    received = bytes(world.plain.received + world.secure.received)
    assert received.count(b"def") == 0
    assert received.count(b" HTTP/1.1") == 1


async def test_a_worker_that_reads_nothing_before_all_is_sent_reads_the_answer(world):
    """A blocking client: its send ends with EPIPE, behind the end of the answer, and never with a
    reset."""
    world.both(then="stands still")
    _, writer, begin = await in_the_clear(world)
    writer.close()
    head = b"POST " + begin + f"Content-Length: {len(MUCH) * 4}\r\n\r\n".encode()

    def blocking() -> bytes:
        with socket.create_connection(world.harness.proxy.address, timeout=60) as worker:
            with pytest.raises(BrokenPipeError):
                worker.sendall(head + MUCH * 4)
            got = b""
            while data := worker.recv(65536):
                got += data
            return got

    assert await asyncio.to_thread(blocking) == REFUSED


@pytest.mark.parametrize("then", ["reads on", "stands still", "hangs up"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_curl_and_requests_show_the_servers_answer(
    world, tmp_path, monkeypatch, scheme, then
):
    monkeypatch.setattr(layers, "DISCARD_FOR_S", 1.0)
    world.both(then=then)
    upload = tmp_path / "upload"
    upload.write_bytes(MUCH)
    server = world.plain if scheme == "http" else world.secure
    host = "plain.example" if scheme == "http" else "api.example"
    url = f"{scheme}://{host}:{server.port}/up"
    curl_said = await ran(
        needed("curl"), "-sS", "--http1.1", "-x", door(world.harness), "-H", "Expect:",
        "--cacert", str(root(world.harness)), "-w", "%{http_code}", "-T", str(upload), url,
    )  # fmt: skip
    assert curl_said == (0, "too much\n413", "")

    def with_requests() -> tuple[int, str]:
        proxies = {scheme: door(world.harness)}
        verify = str(root(world.harness))
        answer = requests.post(url, data=MUCH, proxies=proxies, verify=verify, timeout=30)
        return answer.status_code, answer.text

    assert await asyncio.to_thread(with_requests) == (413, "too much\n")


async def test_a_worker_that_reads_slowly_keeps_its_answer_while_only_the_kernel_holds_it(
    world, monkeypatch
):
    """Nothing of it waits with us, and the rest of the upload is not read: a close would be a
    reset, and would take the answer from the worker that is reading it."""
    monkeypatch.setattr(layers, "DISCARD_FOR_S", 1.0)
    answer = b"HTTP/1.1 413 Too Much\r\nContent-Length: 98304\r\n\r\n" + b"a" * 98304
    world.both(then="stands still", answer=answer)
    looks, looked, is_read_from = [], asyncio.Event(), layers.StrictHttp1Server._is_read_from

    def noted(self):
        looks.append((is_read_from(self), self._guard.unsent_bytes(self.conn)))
        looked.set()
        return looks[-1][0]

    monkeypatch.setattr(layers.StrictHttp1Server, "_is_read_from", noted)
    _, ours, begin = await in_the_clear(world)
    ours.close()
    head = b"POST " + begin + f"Content-Length: {len(MUCH)}\r\n\r\n".encode()
    loop, got = asyncio.get_running_loop(), b""
    with socket.socket() as worker:
        worker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        worker.setblocking(False)
        await loop.sock_connect(worker, world.harness.proxy.address)
        sending = spawn(loop.sock_sendall(worker, head + MUCH), "the upload")
        async with asyncio.timeout(60):
            for _ in range(3):
                await looked.wait()
                looked.clear()
                got += await loop.sock_recv(worker, 8192)
            while data := await loop.sock_recv(worker, 8192):
                got += data
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert got == answer
    assert looks[:3] == [(True, 0)] * 3


async def test_tls_that_is_wrong_behind_our_end_is_no_second_entry(world, tmp_path, monkeypatch):
    """OpenSSL would say what is wrong, and there is no side left to say it on."""
    monkeypatch.setattr(layers, "DISCARD_FOR_S", 2.0)
    world.both(then="stands still")
    target = f"api.example:{world.secure.port}"
    _, reader, writer = await world.harness.connect_to(target)
    trusting = ssl.create_default_context(cafile=str(root(world.harness)))
    tls = HandmadeTls(trusting, tmp_path / "keys", "api.example")
    await tls.shake_hands(reader, writer)
    head = f"POST /up HTTP/1.1\r\nHost: {target}\r\nContent-Length: {len(MUCH)}\r\n\r\n"
    writer.write(tls.data(head.encode(), 1 << 14))
    await everything(reader)
    writer.write(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record under no key of this connection
    await world.harness.core.connections.wait_until_empty(60)
    entries = [(entry["kind"], entry.get("reason")) for entry in world.harness.audit()]
    told = [entry for entry in entries if entry[0] not in ("transfer", "receipt", "checkpoint")]
    assert told == [("verdict", "egress.allowed")] * 2, entries


# --- bounds ---------------------------------------------------------------------------------------


async def test_what_is_thrown_away_is_bounded_and_costs_the_workers_hours(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "DISCARD_FOR_S", 3600.0)
    async with early_world(tmp_path, "limits: {request_bytes_per_hour: 512KiB}") as world:
        reader, writer, begin = await in_the_clear(world)
        writer.write(b"POST " + begin + b"Transfer-Encoding: chunked\r\n\r\n")
        reply = await read_reply(reader)
        assert reply is not None
        assert reply.status == 413
        writer.write(b"80000\r\n" + b"B" * 0x80000 + b"\r\n")
        assert await everything(reader) == b""
        await world.harness.core.connections.wait_until_empty(60)
        reader, writer, begin = await in_the_clear(world)
        writer.write(b"POST " + begin + b"Content-Length: 1\r\n\r\nx")
        reply = await read_reply(reader)
        assert reply is not None
        assert reply.reason == "egress.budget_spent"
        assert transfers(world) == [("complete", 0)]


async def test_a_worker_that_goes_on_for_ever_is_not_read_from_beyond_the_bound(world, monkeypatch):
    discards, thrown_away, is_much = layers.StrictHttp1Server.discard, 0, asyncio.Event()

    def counted(self, event):
        nonlocal thrown_away
        thrown_away += len(event.data) if isinstance(event, events.DataReceived) else 0
        yield from discards(self, event)
        if thrown_away > layers.MAX_DISCARDED_BYTES:
            is_much.set()

    monkeypatch.setattr(layers.StrictHttp1Server, "discard", counted)
    monkeypatch.setattr(layers, "DISCARD_FOR_S", 3600.0)
    reader, writer, begin = await in_the_clear(world)
    writer.write(b"POST " + begin + f"Content-Length: {len(MUCH) * 16}\r\n\r\n".encode())
    await read_reply(reader)
    writer.write(MUCH * 16)
    async with asyncio.timeout(60):
        await is_much.wait()
    other, asks, begin = await in_the_clear(world)
    asks.write(b"GET " + begin + b"\r\n")  # many passes of the loop, in which it could be read
    assert await read_reply(other) is not None
    assert thrown_away <= layers.MAX_DISCARDED_BYTES + ONE_READ


# --- going on -------------------------------------------------------------------------------------


async def test_an_upload_that_ended_meanwhile_leaves_the_connection_to_the_next_request(
    tmp_path, monkeypatch
):
    """The rest came while the answer was looked at: it goes nowhere, and nothing else is lost."""
    may_go_on, was_read = asyncio.Event(), asyncio.Event()

    class Slow(ConnectionGuard):
        async def response(self, flow):
            await may_go_on.wait()
            await super().response(flow)

    ends = layers.StrictHttp1Server._body_ends

    def noticed(self, stream_id, trailers):
        yield from ends(self, stream_id, trailers)
        was_read.set()

    async with early_world(tmp_path, inject=Injection(guard_class=Slow)) as world:
        reader, writer, begin = await in_the_clear(world)
        writer.write(b"POST " + begin + b"Content-Length: 6\r\n\r\nabc")
        reply = await read_reply(reader, has_body=lambda _: True)
        assert reply is not None
        monkeypatch.setattr(layers.StrictHttp1Server, "_body_ends", noticed)
        writer.write(b"def")
        async with asyncio.timeout(60):
            await was_read.wait()
        may_go_on.set()
        world.plain.answer = OK
        writer.write(b"GET " + begin + b"\r\n")
        reply = await read_reply(reader)
        assert reply is not None
        assert (reply.status, reply.body) == (200, b"hello")
        assert world.plain.connections == 2
        assert bytes(world.plain.received).count(b"def") == 0
        assert [outcome for outcome, _ in transfers(world)] == ["complete", "complete"]


# --- last words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("listens", [True, False])
async def test_what_a_server_said_before_it_hung_up_is_read_though_a_write_found_out(listens):
    hung_up = asyncio.Event()

    async def answer_and_reset(_reader, writer):
        writer.write(REFUSED)
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_server(answer_and_reset, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await dial_pinned(("127.0.0.1",), port, reads_last_words=listens)
        writer.transport.pause_reading()
        await hung_up.wait()
        writer.write(b"more")
        assert writer.transport.is_closing()
        if listens:
            assert await reader.read() == REFUSED
        else:
            with pytest.raises(ConnectionError):
                await reader.read()
        writer.close()
