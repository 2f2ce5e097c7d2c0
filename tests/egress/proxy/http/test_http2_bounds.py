"""What one side of HTTP/2 can cost: every way to send much and mean little has a bound.

Raw frames from a hostile worker, and from a hostile server. Each test asks that the connection (or
the stream) ends, that the proxy goes on for others, and where it matters how much got through.
Sources: RFC 9113 section 10.5, CVE-2019-9511 to 9518, CVE-2023-44487, CVE-2024-27316.
"""

import asyncio
import struct
from collections.abc import AsyncIterator

import h2.errors
import h2.settings
import hpack
import pytest
from mitmproxy.proxy.events import DataReceived

from palyra_egress.proxy.bounds.deadlines import Deadlines
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
from tests.egress.proxy.http.h2_floods import (
    CONTINUATION,
    DATA,
    FLOODS,
    HEADERS,
    MANY,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    still_serves,
)
from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.egress.proxy.http.hurried import Hurry
from tests.fakes.h2_peer import frame
from tests.fakes.h2_worker import H2Worker
from tests.fakes.proxy_harness import WORKER, Injection


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


# --- a hostile worker -----------------------------------------------------------------------------


@pytest.mark.parametrize("flood", FLOODS)
async def test_frames_that_carry_nothing_end_the_connection(world, flood):
    Hurry(world.harness)  # no time passes, in which there would be room again
    async with world.worker() as worker:
        worker.raw(FLOODS[flood] * MANY)
        await worker.ended()
    assert world.harness.verdicts()[-1]["reason"] == "egress.request_malformed"
    world.nothing_arrived()
    await still_serves(world)


async def test_empty_data_without_end_ends_the_connection(world):
    Hurry(world.harness)  # no time passes, in which there would be room again
    async with world.worker() as worker:
        stream = worker.ask(worker.fields("POST"), end=False)
        worker.raw(frame(DATA, 0, stream.stream_id) * MANY)
        await worker.ended()
    await still_serves(world)


@pytest.mark.parametrize("speaks", [1, 2])
async def test_streams_that_are_opened_and_reset_at_once_end_the_connection(world, speaks):
    Hurry(world.harness)  # no time passes, in which there would be room again
    async with world.worker(speaks=speaks) as worker:
        for _ in range(1_000):
            worker.reset(worker.ask(worker.fields()).stream_id)
        await worker.ended()
    reached = len(world.second.streams) + len(world.first.heads)
    assert reached <= CAPACITY // RESET_COST + MAX_STREAMS
    await still_serves(world)


async def test_malformed_heads_without_end_end_the_connection(world):
    """No policy is asked about them, so no rate of a policy counts them."""
    Hurry(world.harness)
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
