"""What drips in HTTP/2 ends, alone where it is a stream; what shows that it is there goes on.

Time is the test's: minutes pass between two bytes, and every deadline is the product's own.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.guard.guard_upstream import UpstreamGuard
from palyra_egress.proxy.http.h2_connection import STREAM_WINDOW
from palyra_egress.proxy.http.http_layer import MAX_WAITING_BYTES
from palyra_fleet.tasks import spawn
from tests.egress.proxy.http.h2_floods import CONTINUATION, HEADERS, still_serves
from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.egress.proxy.http.hurried import Hurry
from tests.fakes.h2_peer import frame
from tests.fakes.until import until

TOO_SLOW, NO_END, SILENT = "egress.request_timeout", "egress.upstream_timeout", "egress.deadline"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr("palyra_egress.proxy.http.http_layer.LOOK_EVERY_S", 0.02)


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


@pytest.fixture
def hurry(world):
    return Hurry(world.harness)


def ended(worker):
    return spawn(worker.ended(), "wait for the end")


def over(worker, stream):
    return spawn(worker.answer(stream), "wait for the answer")


# --- heads ----------------------------------------------------------------------------------------

HEADS = {
    "of one frame": (frame(HEADERS, 5, 3, bytes(4_000))[:20], b"\0"),
    "in many frames": (frame(HEADERS, 0, 3, b""), frame(CONTINUATION, 0, 3, b"")),
    "of another frame": (frame(0xFA, 0, 0, bytes(4_000))[:20], b"\0"),
}


@pytest.mark.parametrize("head", HEADS)
async def test_a_frame_that_drips_ends_the_connection(world, hurry, head):
    begin, drop = HEADS[head]
    async with world.worker() as worker:
        await worker.get("/y")  # settings are exchanged: nothing else is sent in between
        worker.raw(begin)
        await hurry.drip(lambda: worker.raw(drop), ended(worker), every_s=3)
    assert hurry.reasons() == ["egress.path_not_allowed", TOO_SLOW]
    world.nothing_arrived()
    await still_serves(world)


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaks", [1, 2])
async def test_a_body_of_which_no_more_comes_is_answered_408_and_costs_its_stream_alone(
    world, hurry, speaks
):
    async def nothing(_head, _writer):
        return

    world.first.respond = nothing
    async with world.worker(speaks=speaks) as worker:
        fields = worker.fields("POST", content_length="100")
        late = worker.ask(fields, end=False)
        await worker.data(late.stream_id, b"0123456789")
        await until("it arrives", lambda: body_at(world, speaks) == b"0123456789")
        await hurry.drip(lambda: None, over(worker, late))
        assert late.status == 408
        assert TOO_SLOW.encode() in bytes(late.body)
        assert hurry.outcomes() == [TOO_SLOW]
        refused = await worker.answer(worker.ask(worker.fields("DELETE")))
        assert refused.status == 403, "the connection goes on"
    assert body_at(world, speaks) == b"0123456789"


def body_at(world, speaks) -> bytes:
    """The first body as it arrived, without what it was wrapped in."""
    if speaks == 2:
        return bytes(world.second.streams[0].body) if world.second.streams else b""
    _, _, behind = bytes(world.first.received).partition(b"\r\n\r\n")
    return behind


async def test_a_slow_but_steady_upload_lives(world, hurry):
    async with world.worker() as worker:
        stream = worker.ask(worker.fields("POST", content_length="30"), end=False)
        sent = 0

        async def one_byte():
            nonlocal sent
            sent += 1
            await worker.data(stream.stream_id, b"b", end=sent == 30)
            await until(
                "it arrives",
                lambda: world.second.streams and len(world.second.streams[0].body) == sent,
            )

        await hurry.steps(30, 50, one_byte)
        await worker.answer(stream)
        assert (stream.status, stream.reset) == (200, None)


async def test_who_may_not_send_a_body_since_other_streams_have_the_window_owes_nothing(
    world, hurry, monkeypatch
):
    monkeypatch.setattr("palyra_egress.proxy.http.h2_connection.CONNECTION_WINDOW", STREAM_WINDOW)
    looks, reading = seen_looks(monkeypatch), asyncio.Event()

    async def takes_nothing(_head, _writer):
        await reading.wait()

    world.first.respond = takes_nothing
    async with world.worker(speaks=1) as worker:
        greedy = worker.ask(worker.fields("POST", content_length=str(1 << 30)), end=False)
        late = worker.ask(worker.fields("POST", content_length="100"), end=False)
        await until("both arrive", lambda: world.first.open_now == 2)
        upload = spawn(worker.data(greedy.stream_id, bytes(32 << 20)), "send without an end")
        await until("its server takes no more", lambda: is_stuck(world, worker))
        for _ in range(4):
            hurry.pass_s(50)
            looks.clear()
            await until("it was looked at twice", lambda: len(looks) >= 2)
        assert not late.over
        assert hurry.outcomes() == []
        upload.cancel()
        reading.set()


def seen_looks(monkeypatch) -> list[None]:
    """One entry for each look at what is open."""
    looks: list[None] = []
    overdue = UpstreamGuard.overdue

    def look(self, waits):
        looks.append(None)
        overdue(self, waits)

    monkeypatch.setattr(UpstreamGuard, "overdue", look)
    return looks


def is_stuck(world, worker) -> bool:
    (handler,) = world.harness.core.connections._all
    unsent = sum(handler.unsent_bytes(one) for one in handler.open_upstreams())
    return unsent > MAX_WAITING_BYTES and worker.h2.outbound_flow_control_window == 0


# --- streams both ways ----------------------------------------------------------------------------


async def two_way(session, stream):
    session.head(stream.stream_id, [(":status", "200")])
    await asyncio.Event().wait()


@pytest.mark.parametrize("is_begun", [True, False])
async def test_a_stream_both_ways_lives_while_one_side_shows_that_it_is_there(
    world, hurry, is_begun
):
    """As calls of gRPC that wait for their next message, or for their first."""

    async def says_nothing(session, stream):
        await asyncio.Event().wait()

    world.second.respond = two_way if is_begun else says_nothing
    async with world.worker() as worker:
        call = worker.ask(worker.fields("POST", "/pkg.Service/Watch"), end=False)
        await world.second.until(lambda: world.second.streams)
        if is_begun:
            await worker.until(lambda: call.fields)
        connection = worker.h2

        async def is_there():
            answered = asyncio.Event()
            told = worker.on_event

            def note(event):
                told(event)
                if type(event).__name__ == "PingAckReceived":
                    answered.set()

            worker.on_event = note
            connection.ping(b"12345678")
            worker.flush()
            await asyncio.wait_for(answered.wait(), 60)

        await hurry.steps(5, 300, is_there)
        assert not call.over
        await hurry.drip(lambda: None, over(worker, call))
        assert hurry.outcomes() == [SILENT]
        assert world.second.sessions[0].closed is False


# --- answers --------------------------------------------------------------------------------------


async def begins(session, stream):
    session.head(stream.stream_id, [(":status", "200")])
    await session.data(stream.stream_id, b"begun")
    await asyncio.Event().wait()


async def begins_in_http1(_head, writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")


@pytest.mark.parametrize("speaks", [1, 2])
async def test_an_answer_of_which_no_more_comes_is_reset_and_costs_its_stream_alone(
    world, hurry, speaks
):
    world.second.respond, world.first.respond = begins, begins_in_http1
    async with world.worker(speaks=speaks) as worker:
        silent = worker.ask(worker.fields())
        await worker.until(lambda: bytes(silent.body) == b"begun")
        await hurry.drip(lambda: None, over(worker, silent))
        assert (silent.ended, silent.reset is not None) == (False, True)
        assert hurry.outcomes() == [NO_END]
        refused = await worker.answer(worker.ask(worker.fields("DELETE")))
        assert refused.status == 403, "the connection goes on"
        if speaks == 2:
            await world.second.until(lambda: world.second.streams[0].reset is not None)
        else:
            await world.first.wait_until_closed()


async def test_an_event_stream_with_an_event_a_minute_lives_until_its_whole_time_is_up(tmp_path):
    sessions = []

    async def streams(session, stream):
        session.head(stream.stream_id, [(":status", "200")])
        sessions.append((session, stream))
        await asyncio.Event().wait()

    async with http2_world(tmp_path, deadlines=Deadlines(exchange_s=3_000)) as world:
        world.second.respond, hurry = streams, Hurry(world.harness)
        async with world.worker() as worker:
            events = worker.ask(worker.fields())
            await worker.until(lambda: events.fields)
            session, stream = sessions[0]

            async def event():
                before = events.received
                await session.data(stream.stream_id, b":\n")
                await worker.until(lambda: events.received > before)

            await hurry.steps(40, 60, event)
            assert not events.over
            await hurry.drip(lambda: None, over(worker, events), every_s=60)
            assert hurry.outcomes() == [SILENT]


# --- connections that carry nothing ---------------------------------------------------------------


async def test_a_connection_that_only_pings_is_closed(tmp_path):
    async with http2_world(tmp_path, deadlines=Deadlines(silence_s=0.5)) as world:
        hurry = Hurry(world.harness)
        async with world.worker() as worker:

            def ping():
                worker.h2.ping(b"12345678")
                worker.flush()

            await hurry.drip(ping, ended(worker), every_s=1)
        assert worker.goaway.error_code == 0, "told before it was closed, and no error"
        assert worker.goaway.last_stream_id == 0
        world.nothing_arrived()
        assert world.harness.core.connections.by_worker() == {}


async def test_an_idle_connection_says_goodbye_and_which_streams_it_took(tmp_path):
    async with http2_world(tmp_path, deadlines=Deadlines(silence_s=0.3)) as world:
        hurry = Hurry(world.harness)
        async with world.worker() as worker:
            stream = await worker.get()
            assert stream.status == 200
            hurry.pass_s(1)
            await worker.ended()
        assert (worker.goaway.error_code, worker.goaway.last_stream_id) == (0, stream.stream_id)
        assert hurry.outcomes() == ["complete"]
        await until("it is forgotten", lambda: not world.harness.core.connections.by_worker())


async def test_one_that_cannot_be_told_is_closed_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(UpstreamGuard, "takes_leave", lambda _: False)
    async with http2_world(
        tmp_path, deadlines=Deadlines(silence_s=0.3, last_answer_s=0.1)
    ) as world:
        hurry = Hurry(world.harness)
        async with world.worker() as worker:
            await worker.get()
            hurry.pass_s(1)
            await worker.ended()
        assert worker.goaway is None
