"""HTTP/2 towards workers and servers: every stream is judged, answered and ended on its own."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from palyra_egress.proxy.guard import guard_upstream
from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.fakes.h2_upstream import answer_hello

BOTH = pytest.mark.parametrize("speaks", [1, 2])


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


def asked(world: Http2World, speaks: int) -> int:
    """How many requests the server of this version got."""
    return len(world.second.streams) if speaks == 2 else len(world.first.heads)


@BOTH
async def test_a_request_is_carried_and_audited(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        answer = await worker.get("/x?y=1", user_agent="t")
        assert (answer.status, bytes(answer.body)) == (200, b"hello")
    verdict = world.harness.verdicts()[-1]
    assert verdict["reason"] == "egress.allowed"
    assert verdict["target"].endswith("/x")
    (transfer,) = world.transfers()
    assert transfer["decision_id"] == verdict["decision_id"]
    assert (transfer["outcome"], transfer["response_bytes"]) == ("complete", 5)


async def test_what_reaches_an_http2_server_is_canonical(world):
    async with world.worker() as worker:
        await worker.get(
            "/x", user_agent="t", te="trailers", proxy_authorization="x", x_palyra_worker="x"
        )
    (stream,) = world.second.streams
    assert stream.fields == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", world.authority(speaks=2).encode()),
        (b":path", b"/x"),
        (b"user-agent", b"t"),
        (b"via", b"2 palyra-egress"),
        (b"te", b"trailers"),
    ]


async def test_what_reaches_an_http1_server_is_canonical(world):
    async with world.worker(speaks=1) as worker:
        fields = worker.fields(user_agent="t", te="trailers")
        await worker.answer(worker.ask([*fields, ("cookie", "a=1"), ("cookie", "b=2")]))
    authority = world.authority(speaks=1)
    assert bytes(world.first.received).decode() == (
        f"GET /x HTTP/1.1\r\nHost: {authority}\r\nuser-agent: t\r\ncookie: a=1; b=2\r\n"
        "Via: 2 palyra-egress\r\n\r\n"
    )


@BOTH
async def test_a_refused_stream_is_answered_and_the_others_go_on(world, speaks):
    go_on = asyncio.Event()

    async def later(session, stream):
        await go_on.wait()
        session.head(stream.stream_id, [(":status", "200")], end=True)

    async def later_in_http1(_head, writer):
        await go_on.wait()
        writer.write(world.first.answer)

    world.second.respond, world.first.respond = later, later_in_http1
    async with world.worker(speaks=speaks) as worker:
        first = worker.ask(worker.fields())
        refused = await worker.get("/closed/x")
        with_body = await worker.post(b"secret", "/closed/y")
        for answer in (refused, with_body):
            assert answer.status == 403
            assert b"egress.path_not_allowed" in answer.body
            assert answer["content-type"] == "application/problem+json"
            assert answer["proxy-status"].endswith('details="egress.path_not_allowed"')
            assert "connection" not in answer.names()
        go_on.set()
        assert (await worker.answer(first)).status == 200
        assert (await worker.get("/x")).status == 200
    assert asked(world, speaks) == 2


@BOTH
async def test_a_refusal_of_head_has_no_body_and_the_others_go_on(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        refused = await worker.answer(worker.ask(worker.fields("HEAD", "/closed")))
        assert (refused.status, bytes(refused.body)) == (403, b"")
        assert (await worker.get("/x")).status == 200


async def test_a_refusal_of_head_in_http1_has_no_body_and_the_next_answer_is_its_own(world):
    authority = world.authority(speaks=1)
    _, reader, writer = await world.harness.tunnel(authority)
    for path, status in (("/closed", b"403"), ("/x", b"200")):
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        async with asyncio.timeout(60):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200"), ("GET", "204"), ("GET", "304")])
async def test_a_server_that_sends_a_body_where_none_may_be_is_cut(world, method, status):
    async def too_much(session, stream):
        session.head(stream.stream_id, [(":status", status)])
        await session.data(stream.stream_id, b"hello", end=True)

    world.second.respond = too_much
    async with world.worker() as worker:
        answer = await worker.answer(worker.ask(worker.fields(method)))
        assert (answer.status == 502) or answer.reset is not None
        assert b"hello" not in answer.body
        world.second.respond = answer_hello
        assert (await worker.get()).status == 200


async def test_a_refused_body_is_thrown_away_and_its_stream_ends(world):
    """A reset right behind the answer makes some clients (curl 7) lose the answer."""
    async with world.worker() as worker:
        stream = worker.ask(worker.fields("POST", "/closed"), end=False)
        await worker.answer(stream)
        assert (stream.status, stream.ended, stream.reset) == (403, True, None)
        await worker.data(stream.stream_id, b"x" * 200_000, end=True)
        endless = worker.ask(worker.fields("POST", "/closed"), end=False)
        await worker.until(lambda: endless.reset is not None)
        assert (endless.status, endless.reset) == (403, 0)
        assert (await worker.get()).status == 200


@BOTH
async def test_many_streams_at_once_are_each_answered(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        streams = [worker.ask(worker.fields(path=f"/x/{number}")) for number in range(90)]
        for stream in streams:
            assert (await worker.answer(stream)).status == 200
    assert asked(world, speaks) == 90
    if speaks == 2:
        assert world.second.connections == 1
        assert sorted(stream[":path"] for stream in world.second.streams) == sorted(
            f"/x/{number}" for number in range(90)
        )
    else:
        assert world.first.connections <= 16
    assert [entry["outcome"] for entry in world.transfers()] == ["complete"] * 90


async def test_an_http1_worker_is_carried_to_a_server_that_was_asked_for_http2(world, monkeypatch):
    monkeypatch.setattr(guard_upstream, "HTTP1_ALPN", b"h2")
    authority = world.authority(speaks=2)
    _, reader, writer = await world.harness.tunnel(authority)
    for body in (b"one", b"two"):
        writer.write(
            f"POST /x HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + b"3\r\n"
            + body
            + b"\r\n0\r\n\r\n"
        )
        answer = await reader.readuntil(b"0\r\n\r\n")
        assert answer == (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\n\r\n"
        )
    assert [bytes(stream.body) for stream in world.second.streams] == [b"one", b"two"]
    assert "transfer-encoding" not in world.second.streams[0].names()
