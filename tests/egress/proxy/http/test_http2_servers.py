"""What a hostile server of HTTP/2 can cost, and what of it reaches the worker: nothing.

Raw frames from the server's side. Each test asks what the worker is told, and that the proxy goes
on for others. Sources: RFC 9113 section 10.5, CVE-2019-9511 to 9518, CVE-2024-27316.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import h2.errors
import hpack
import pytest

from palyra_egress.proxy.http import http_layer
from tests.egress.proxy.http.h2_floods import (
    CONTINUATION,
    DATA,
    FLOODS,
    GOAWAY,
    HEADERS,
    MANY,
    PING,
    PUSH_PROMISE,
    still_serves,
)
from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.egress.proxy.http.hurried import Hurry
from tests.fakes.h2_peer import frame


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


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

    Hurry(world.harness)  # no time passes, in which there would be room again
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
