"""A server that takes a whole request and does not answer is given up: the worker is told, the
audit log says so once, the server's connection ends, and nothing else of the worker does.

What must outlive the deadline here has its answer, or an unfinished request, before the silent one
is asked, so that no test depends on how fast the machine is.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.guard import guard_upstream
from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.egress.proxy.lanes import (
    CARRYING,
    chaos,
    inner_head,
    passed_on,
    redirected_passed_on,
    socks_passed_on,
    websocket,
)
from tests.fakes.proxy_harness import read_to_end

SHORT = Deadlines(answer_s=0.05)
REASON = "egress.upstream_timeout"
WINDOW = 65_535  # of a stream and of a connection, unless told otherwise (RFC 9113 section 6.9.2)
UNSEEN = (passed_on, socks_passed_on, redirected_passed_on)
CARRIED_BY_REQUEST = [lane for lane in CARRYING if lane not in (*UNSEEN, websocket)]


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr("palyra_egress.proxy.http.http_layer.LOOK_EVERY_S", 0.02)


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path, deadlines=SHORT) as made:
        made.first.respond, made.second.respond = silent_in_http1, silent_if_asked
        yield made


async def silent_in_http1(_head, _writer):
    return


async def silent_if_asked(session, stream):
    """Begins to answer at once, and ends when the request does; nothing at all on /x/silent."""
    if stream[":path"] == "/x/silent":
        await asyncio.Event().wait()
    session.head(stream.stream_id, [(":status", "200")])
    await session.until(lambda: stream.over)
    await session.data(stream.stream_id, b"hello", end=True)


def outcomes(harness) -> list[str]:
    return [entry["outcome"] for entry in harness.audit() if entry["kind"] == "transfer"]


# --- every lane -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", CARRIED_BY_REQUEST, ids=lambda lane: lane.__name__)
async def test_a_request_that_no_server_answers_is_answered_by_the_proxy(tmp_path, lane):
    async with chaos(tmp_path, deadlines=SHORT) as world:
        world.plain.respond = world.secure.respond = silent_in_http1
        got = await lane(world)
        assert got.startswith(b"HTTP/1.1 504 ")
        assert REASON.encode() in got
        await world.everything_is_closed()
        assert len(world.plain.heads) + len(world.secure.heads) == 1, "it is not tried again"
        assert outcomes(world.harness) == [REASON]


async def test_an_http1_worker_reads_whose_time_was_up(tmp_path):
    async with chaos(tmp_path, deadlines=SHORT) as world:
        world.plain.respond = silent_in_http1
        head, _, _ = (await CARRIED_BY_REQUEST[0](world)).partition(b"\r\n\r\n")
        assert b"error=http_response_timeout" in head


async def test_interim_responses_are_no_answer(tmp_path):
    async def hints(_head, writer):
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")

    async with chaos(tmp_path, deadlines=SHORT) as world:
        world.plain.respond = hints
        got = await CARRIED_BY_REQUEST[0](world)
        assert got.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 504 " in got
        assert outcomes(world.harness) == [REASON]


async def test_an_http1_worker_of_an_http2_server_is_answered_too(world, monkeypatch):
    monkeypatch.setattr(guard_upstream, "HTTP1_ALPN", b"h2")
    authority = world.authority(speaks=2)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(inner_head(authority, "GET", path="/x/silent"))
    assert (await read_to_end(reader)).startswith(b"HTTP/1.1 504 ")
    await world.second.until(lambda: world.second.sessions[-1].closed)
    assert outcomes(world.harness) == [REASON]


# --- the worker's other streams -------------------------------------------------------------------


async def begun(worker, path="/x/other"):
    """A stream whose answer has begun and whose request is not over."""
    stream = worker.ask(worker.fields("POST", path), end=False)
    await worker.until(lambda: stream.fields)
    return stream


async def is_whole(worker, stream):
    await worker.data(stream.stream_id, b"", end=True)
    await worker.answer(stream)
    return (stream.status, bytes(stream.body), stream.reset) == (200, b"hello", None)


async def test_a_stream_without_answer_ends_alone_and_its_connection_takes_no_other(world):
    async with world.worker() as worker:
        other = await begun(worker)
        answer = await worker.get("/x/silent")
        assert answer.status == 504
        assert REASON.encode() in bytes(answer.body)
        fresh = await begun(worker, "/x/fresh")
        assert world.second.connections == 2
        old, new = world.second.sessions
        assert not old.closed
        assert await is_whole(worker, other)
        await world.second.until(lambda: old.closed)
        assert not new.closed
        assert await is_whole(worker, fresh)
    assert outcomes(world.harness) == [REASON, "complete", "complete"]


async def test_an_http1_server_that_does_not_answer_costs_its_stream_alone(world):
    async def one_of_two(head, writer):
        if head.startswith(b"POST /x/other "):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            others.append(writer)

    others = []
    world.first.respond = one_of_two
    async with world.worker(speaks=1) as worker:
        other = await begun(worker)
        await worker.data(other.stream_id, b"", end=True)
        assert (await worker.get("/x/silent")).status == 504
        others[0].write(b"hello")
        await worker.answer(other)
        assert (bytes(other.body), other.reset) == (b"hello", None), "its body may take longer"


async def test_a_request_that_is_not_over_waits_without_this_deadline(world):
    async def when_it_is_over(session, stream):
        if stream[":path"] == "/x/silent":
            await asyncio.Event().wait()
        await answers.wait()
        session.head(stream.stream_id, [(":status", "200")], end=True)

    answers = asyncio.Event()
    world.second.respond = when_it_is_over
    async with world.worker() as worker:
        open_one = worker.ask(worker.fields("POST"), end=False)
        await world.second.until(lambda: len(world.second.streams) == 1)
        assert (await worker.get("/x/silent")).status == 504
        answers.set()
        await worker.until(lambda: open_one.fields)
        assert open_one.status == 200


async def test_a_body_that_waits_for_its_servers_window_has_not_left(world):
    async def takes_it_later(session, stream):
        if stream[":path"] == "/x/silent":
            await asyncio.Event().wait()
        await opens.wait()
        for session_stream in list(session.streams):
            session.give_credit(session_stream)
        session.flush()
        session.credits = True
        await session.until(lambda: stream.over)
        session.head(stream.stream_id, [(":status", "200")], end=True)

    opens = asyncio.Event()
    world.second.respond, world.second.credits = takes_it_later, False
    async with world.worker() as worker:
        long_one = worker.ask(worker.fields("POST"), end=False)
        await worker.data(long_one.stream_id, bytes(WINDOW + 1), end=True)
        await world.second.until(lambda: [one.received for one in world.second.streams] == [WINDOW])
        assert (await worker.get("/x/silent")).status == 504
        opens.set()
        await worker.answer(long_one)
        assert (long_one.status, long_one.reset) == (200, None)
    assert [one.received for one in world.second.streams if one.ended] == [WINDOW + 1, 0]
