"""What one side of HTTP/2 can cost: every way to send much and mean little has a bound.

Raw frames from a hostile worker, and from a hostile server. Each test asks that the connection (or
the stream) ends, that the proxy goes on for others, and where it matters how much got through.
Sources: RFC 9113 section 10.5, CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import h2.errors
import h2.settings
import hpack
import pytest
from mitmproxy.proxy.events import DataReceived

from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.http import http_layer
from palyra_egress.proxy.http.frame_budget import CAPACITY, REFILL_PER_S, RESET_COST, FrameBudget
from palyra_egress.proxy.http.h2_connection import (
    CONNECTION_WINDOW,
    MAX_ENCODER_TABLE_BYTES,
    MAX_STREAMS,
    STREAM_WINDOW,
    BoundedH2Connection,
)
from palyra_egress.proxy.http.http_layer import MAX_WAITING_BYTES
from palyra_egress.proxy.http.pieces import MAX_PIECE_BYTES
from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.fakes.h2_peer import frame
from tests.fakes.h2_worker import H2Worker
from tests.fakes.proxy_harness import WORKER, Injection

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
MANY = 5_000


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


async def still_serves(world: Http2World) -> None:
    async with world.worker() as other:
        assert (await other.get()).status == 200


# --- a hostile worker -----------------------------------------------------------------------------

FLOODS = {
    "pings": frame(PING, 0, 0, b"12345678"),
    "pings that nobody asked for answered": frame(PING, 1, 0, b"12345678"),
    "settings": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)),
    "empty settings": frame(SETTINGS, 0, 0),
    "priorities": frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
    "window updates": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
    "frames of an unknown type": frame(0xEE, 0, 0, b"x"),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_frames_that_carry_nothing_end_the_connection(world, flood):
    async with world.worker() as worker:
        worker.raw(FLOODS[flood] * MANY)
        await worker.ended()
    assert world.harness.verdicts()[-1]["reason"] == "egress.request_malformed"
    world.nothing_arrived()
    await still_serves(world)


async def test_empty_data_without_end_ends_the_connection(world):
    async with world.worker() as worker:
        stream = worker.ask(worker.fields("POST"), end=False)
        worker.raw(frame(DATA, 0, stream.stream_id) * MANY)
        await worker.ended()
    await still_serves(world)


@pytest.mark.parametrize("speaks", [1, 2])
async def test_streams_that_are_opened_and_reset_at_once_end_the_connection(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        for _ in range(1_000):
            worker.reset(worker.ask(worker.fields()).stream_id)
        await worker.ended()
    reached = len(world.second.streams) + len(world.first.heads)
    assert reached <= CAPACITY // RESET_COST + MAX_STREAMS
    await still_serves(world)


async def test_malformed_heads_without_end_end_the_connection(world):
    """No policy is asked about them, so no rate of a policy counts them."""
    before = len(world.harness.verdicts())
    async with world.worker() as worker:
        for _ in range(MANY):
            await worker.get(scheme="http")
            if worker.closed:
                break
        assert worker.closed
    assert len(world.harness.verdicts()) - before < MANY // 4
    world.nothing_arrived()
    await still_serves(world)


@pytest.mark.parametrize("speaks", [1, 2])
async def test_others_have_a_turn_between_pieces_of_small_frames(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        (handler,) = world.harness.core.connections._by_worker[WORKER]
        sizes, handle = [], handler.layer.handle_event

        def noted(event):
            if isinstance(event, DataReceived) and event.connection is handler.client:
                sizes.append(len(event.data))
            return handle(event)

        handler.layer.handle_event = noted
        stream = worker.ask(worker.fields("POST"), end=False)
        small, count = frame(DATA, 0, stream.stream_id, b"x"), 10_000
        worker.raw(small * count + frame(DATA, 1, stream.stream_id, b"x"))
        assert (await worker.answer(stream)).status == 200
        assert sum(sizes) > count * len(small) // 2 or speaks == 1
    assert 0 < max(sizes) <= MAX_PIECE_BYTES


async def test_honest_cancellations_go_on(world):
    async with world.worker() as worker:
        for _ in range(250):
            stream = worker.ask(worker.fields())
            await worker.until(lambda: stream.fields)  # noqa: B023 asked at once
            if not stream.over:
                worker.reset(stream.stream_id)
        assert (await worker.get()).status == 200


async def test_a_head_in_endless_continuations_ends_the_connection(world):
    async with world.worker() as worker:
        worker.raw(frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * MANY)
        await worker.ended()
    world.nothing_arrived()
    await still_serves(world)


async def test_a_head_in_large_continuations_ends_the_connection(world):
    async with world.worker() as worker:
        worker.raw(frame(HEADERS, 0, 1, b"\x00") + frame(CONTINUATION, 0, 1, b"x" * 16_384) * 100)
        await worker.ended()
    world.nothing_arrived()
    await still_serves(world)


async def test_a_small_head_that_unpacks_to_a_large_one_ends_the_connection(world):
    """One field of 4 kB put into the table, and named from there a thousand times."""
    encoder = hpack.Encoder()
    async with world.worker() as worker:
        good = encoder.encode(worker.fields())
        bomb = encoder.encode([("x", "a" * 4_000)])
        again = encoder.encode([("x", "a" * 4_000)])
        assert len(again) == 1
        worker.raw(frame(HEADERS, 5, 1, good + bomb + again * 1_000))
        await worker.ended()
    world.nothing_arrived()
    await still_serves(world)


async def test_more_streams_than_there_may_be_end_the_connection(world):
    async def silent(session, stream):
        await asyncio.Event().wait()

    world.second.respond = silent
    async with world.worker() as worker:
        await worker.until(lambda: worker.h2.remote_settings.max_concurrent_streams == MAX_STREAMS)
        block = hpack.Encoder().encode(worker.fields())
        fields = [frame(HEADERS, 5, number, block) for number in range(1, 2 * MAX_STREAMS + 4, 2)]
        plain = hpack.Encoder()
        blocks = [plain.encode(worker.fields()) for _ in fields]
        worker.raw(
            b"".join(
                frame(HEADERS, 5, 2 * number + 1, block) for number, block in enumerate(blocks)
            )
        )
        await worker.ended()
    assert len(world.second.streams) <= MAX_STREAMS


NO_CONNECTION = {
    "data on stream 0": frame(DATA, 0, 0, b"x"),
    "headers on stream 0": frame(HEADERS, 5, 0, b""),
    "an even stream": frame(HEADERS, 5, 2, b"\x82"),
    "a push": frame(PUSH_PROMISE, 4, 1, b"\0\0\0\x02\x82"),
    "a frame larger than allowed": frame(PING, 0, 0, b"12345678x"),
    "too large a frame": (1 << 20).to_bytes(3) + b"\0\0\0\0\0\1" + b"x" * 100,
    "a window of more than there is": frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    "a window update of nothing": frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
    "data on a stream nobody opened": frame(DATA, 0, 5, b"x"),
    "a reset of a stream nobody opened": frame(RST_STREAM, 0, 5, b"\0\0\0\0"),
    "a bad table index": frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\x0f"),
    "a setting that cannot be": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)),
    "another request in HTTP/1": b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n",
}


@pytest.mark.parametrize("row", NO_CONNECTION)
async def test_what_is_no_http2_ends_the_connection_and_is_audited(world, row):
    async with world.worker() as worker:
        worker.raw(NO_CONNECTION[row])
        await worker.ended()
    assert world.harness.verdicts()[-1]["reason"] == "egress.request_malformed"
    world.nothing_arrived()
    await still_serves(world)


async def test_a_worker_that_agreed_on_http2_and_speaks_http1_is_refused(world):
    authority = world.authority(speaks=2)

    class Other(H2Worker):
        def flush(self) -> None:
            self.writer.write(f"GET /x HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())

    async with world.worker(cls=Other) as worker:
        await worker.ended()
    world.nothing_arrived()


# --- who does not take what it asked for ----------------------------------------------------------

NO_WINDOW = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}
SHORT = Injection(deadlines=Deadlines(stall_s=0.2))


async def _endless(session, stream):
    session.head(stream.stream_id, [(":status", "200")])
    while True:
        await session.data(stream.stream_id, b"x" * 65_536)
        session.sent = getattr(session, "sent", 0) + 65_536


async def _endless_in_http1(_head, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.sent = 0
    while True:
        writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        await writer.drain()
        writer.sent += 65_536


@pytest.mark.parametrize("speaks", [1, 2])
async def test_a_worker_that_opens_no_window_stops_its_server_and_is_cut(
    tmp_path, monkeypatch, speaks
):
    monkeypatch.setattr("palyra_egress.proxy.http.http_layer.LOOK_EVERY_S", 0.1)
    async with http2_world(tmp_path, inject=SHORT) as world:
        sent = []

        async def endless_in_http1(head, writer):
            sent.append(writer)
            await _endless_in_http1(head, writer)

        world.second.respond, world.first.respond = _endless, endless_in_http1
        async with world.worker(speaks=speaks, settings=NO_WINDOW) as worker:
            stalled = worker.ask(worker.fields())
            await worker.answer(stalled)
            assert stalled.reset is not None
            assert stalled.received == 0
            refused = worker.ask(worker.fields("DELETE"))
            await worker.until(lambda: refused.fields)
            assert refused.status == 403, "the connection goes on"
        (transfer,) = world.transfers()
        assert transfer["outcome"] == "egress.deadline"
        if speaks == 2:
            (session,) = world.second.sessions
            assert session.sent <= STREAM_WINDOW
        else:
            in_buffers = 16 << 20  # the kernel's, on both ends of loopback
            assert sent[0].sent <= MAX_WAITING_BYTES + in_buffers


@pytest.mark.parametrize("speaks", [1, 2])
async def test_a_server_that_takes_nothing_stops_its_worker(world, speaks):
    world.second.credits = False
    reading = asyncio.Event()

    async def takes_nothing(_head, _writer):
        await reading.wait()

    world.first.respond = takes_nothing
    async with world.worker(speaks=speaks) as worker:
        stream = worker.ask(worker.fields("POST"), end=False)
        sent = 0

        async def upload() -> None:
            nonlocal sent
            while True:
                await worker.data(stream.stream_id, b"x" * 65_536)
                sent += 65_536

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await upload()
        in_buffers = 0 if speaks == 2 else 8 << 20
        assert sent <= 2 * STREAM_WINDOW + MAX_WAITING_BYTES + in_buffers
        world.second.credits = True
        other = worker.ask(worker.fields("DELETE"))
        assert (await worker.answer(other)).status == 403, "the other streams go on"
        reading.set()


# --- a hostile server -----------------------------------------------------------------------------

SERVER_FLOODS = {
    **{name: FLOODS[name] for name in ("pings", "settings", "window updates")},
    "a push": frame(PUSH_PROMISE, 4, 1, b"\0\0\0\x02\x82"),
    "continuations": frame(HEADERS, 0, 1, b"\x88") + frame(CONTINUATION, 0, 1, b"") * MANY,
    "a head that unpacks to a large one": frame(
        HEADERS, 4, 1, b"\x88" + hpack.Encoder().encode([("x", "a" * 4_000)]) + b"\xbe" * 1_000
    ),
    "a request": frame(HEADERS, 5, 2, b"\x82\x87\x84"),
    "data before its head": frame(DATA, 0, 1, b"x"),
    "a status that is none": frame(HEADERS, 5, 1, b"\x00\x07:status\x03abc"),
    "no status": frame(HEADERS, 5, 1, b"\x00\x01x\x011"),
    "a connection field": frame(HEADERS, 5, 1, b"\x88\x00\x0aconnection\x01x"),
    "an upper-case name": frame(HEADERS, 5, 1, b"\x88\x00\x01X\x011"),
    "a value with a line end": frame(HEADERS, 5, 1, b"\x88\x00\x01x\x06a\r\nb:c"),
    "101": frame(HEADERS, 5, 1, b"\x00\x07:status\x03101"),
    "HTTP/1": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.mark.parametrize("row", SERVER_FLOODS)
async def test_a_servers_floods_and_lies_do_not_reach_the_worker(world, row):
    async def hostile(session, stream):
        session.raw(SERVER_FLOODS[row] * (MANY if row in FLOODS else 1))

    respond, world.second.respond = world.second.respond, hostile
    async with world.worker() as worker:
        answer = await worker.get()
        assert answer.status in (502, None)
    world.second.respond = respond
    await still_serves(world)


async def test_a_server_that_makes_us_answer_and_reads_nothing_is_given_up_on(world, monkeypatch):
    """Its bytes earn what its pings spend, so no budget of frames ends it."""
    monkeypatch.setattr(http_layer, "MAX_UNSENT_BYTES", 1024)
    ping_and_byte = frame(PING, 0, 0, b"12345678") + frame(DATA, 0, 1, b"x")

    async def asks_and_never_reads(session, stream):
        session.head(stream.stream_id, [(":status", "200")])
        session.writer.transport.pause_reading()
        (handler,) = world.harness.core.connections._all
        for side, io in handler.transports.items():  # the kernel keeps as little as it can
            if side is not handler.client:
                own = io.writer.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        own = session.writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with suppress(OSError):
            while True:
                session.raw(ping_and_byte * 100)
                await session.writer.drain()

    respond, world.second.respond = world.second.respond, asks_and_never_reads
    async with asyncio.timeout(60), world.worker() as worker:
        stream = worker.ask(worker.fields("GET"))
        while not worker.closed:
            worker.changed.clear()
            await worker.changed.wait()
        assert not stream.over
    assert [entry["outcome"] for entry in world.transfers()] == ["egress.upstream_protocol"]
    world.second.respond = respond
    await still_serves(world)


async def test_a_server_that_goes_away_in_mid_flight_finishes_what_it_took(world):
    taken = asyncio.Event()

    async def going(session, stream):
        await session.until(lambda: stream.over)
        if stream[":path"] == "/x/1":
            session.raw(frame(GOAWAY, 0, 0, struct.pack(">II", stream.stream_id, 0)))
            taken.set()
            await session.until(lambda: False)
        session.head(stream.stream_id, [(":status", "200")], end=True)

    async def going_and_answering(session, stream):
        await session.until(lambda: stream.over)
        session.raw(frame(GOAWAY, 0, 0, struct.pack(">II", stream.stream_id, 0)))
        session.head(stream.stream_id, [(":status", "200")])
        await session.data(stream.stream_id, b"hello", end=True)

    world.second.respond = going_and_answering
    async with world.worker() as worker:
        for _ in range(3):
            answer = await worker.get()
            assert (answer.status, bytes(answer.body)) == (200, b"hello")
    assert world.second.connections == 3


async def test_a_stream_that_a_leaving_server_did_not_take_is_answered(world):
    async def going(session, stream):
        session.raw(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)))

    respond, world.second.respond = world.second.respond, going
    async with world.worker() as worker:
        assert (await worker.get()).status == 502
        world.second.respond = respond
        assert (await worker.get()).status == 200


async def test_a_server_that_resets_a_stream_ends_that_stream_alone(world):
    async def resets(session, stream):
        if stream[":path"] == "/x/reset":
            session.head(stream.stream_id, [(":status", "200")])
            session.reset(stream.stream_id)
        else:
            session.head(stream.stream_id, [(":status", "200")], end=True)

    world.second.respond = resets
    async with world.worker() as worker:
        first = worker.ask(worker.fields(path="/x/reset"))
        assert (await worker.get("/x/other")).status == 200
        await worker.answer(first)
        assert first.reset is not None
    assert world.second.connections == 1


@pytest.mark.parametrize("code", list(h2.errors.ErrorCodes), ids=lambda code: code.name)
async def test_a_server_that_resets_a_stream_before_it_answered_is_told_of(world, code):
    async def resets(session, stream):
        session.reset(stream.stream_id, code)

    world.second.respond = resets
    async with world.worker() as worker:
        answer = await worker.get()
        assert (answer.status, answer.ended) == (502, True)
        assert b"upstream_protocol" in answer.body


async def test_an_answer_before_the_request_is_complete_arrives_whole(world):
    async def early(session, stream):
        session.head(stream.stream_id, [(":status", "413")])
        await session.data(stream.stream_id, b"x" * 300_000, end=True)
        session.reset(stream.stream_id, 0)

    world.second.respond = early
    async with world.worker() as worker:
        stream = worker.ask(worker.fields("POST"), end=False)
        await worker.data(stream.stream_id, b"begun")
        await worker.answer(stream)
        assert (stream.status, len(stream.body), stream.ended) == (413, 300_000, True)
        world.second.respond = early
        assert (await worker.answer(worker.ask(worker.fields("DELETE")))).status == 403


# --- the parts ------------------------------------------------------------------------------------


def test_a_budget_of_frames_is_spent_earned_and_refilled():
    budget = FrameBudget(0)
    assert all(budget.spend(1, 0) for _ in range(CAPACITY))
    assert not budget.spend(1, 0)
    assert budget.spend(1, 1000)
    budget.earn(10 * CAPACITY)
    assert budget.tokens == CAPACITY
    assert not FrameBudget(0, 0).spend(REFILL_PER_S + 1, 1000)


def test_the_table_that_a_peer_asks_for_is_bounded():
    connection = BoundedH2Connection(client_side=False, clock=lambda: 0, validates=False)
    connection.initiate_connection()
    wanted = struct.pack(">HI", 1, 2**32 - 1)
    connection.receive_data(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, wanted))
    assert connection.encoder.header_table_size == MAX_ENCODER_TABLE_BYTES


def test_windows_are_what_one_side_may_leave_here():
    connection = BoundedH2Connection(client_side=False, clock=lambda: 0, validates=False)
    connection.initiate_connection()
    assert connection.local_settings.initial_window_size == STREAM_WINDOW
    assert connection.inbound_flow_control_window == CONNECTION_WINDOW
