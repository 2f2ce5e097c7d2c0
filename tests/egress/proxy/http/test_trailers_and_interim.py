"""Trailers pass both ways in both versions, and interim responses one way, as far as they may."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from palyra_egress.proxy.http.trailers import returnable_trailers, trailers_problem
from tests.egress.proxy.http.h2_world import POLICY, Http2World, http2_world
from tests.fakes.proxy_harness import read_to_end

CANARY = "canary-9f8e7d6c5b4a"
BOTH = pytest.mark.parametrize("speaks", [1, 2])


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


async def _post_with_trailers(world, speaks, *trailers):
    async with world.worker(speaks=speaks) as worker:
        stream = worker.ask(worker.fields("POST", te="trailers"), end=False)
        await worker.data(stream.stream_id, b"body")
        worker.head(stream.stream_id, list(trailers), end=True)
        return await worker.answer(stream)


async def test_a_workers_trailers_reach_an_http2_server(world):
    answer = await _post_with_trailers(world, 2, ("x-checksum", "1"))
    assert answer.status == 200
    (stream,) = world.second.streams
    assert (bytes(stream.body), stream.trailers) == (b"body", [(b"x-checksum", b"1")])


async def test_a_workers_trailers_reach_an_http1_server_behind_the_last_chunk(world):
    answer = await _post_with_trailers(world, 1, ("x-checksum", "1"))
    assert answer.status == 200
    assert bytes(world.first.received).endswith(b"4\r\nbody\r\n0\r\nx-checksum: 1\r\n\r\n")


async def test_an_http1_workers_trailers_reach_an_http1_server(world):
    authority = world.authority(speaks=1)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(
        f"POST /x HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n"
        "Connection: close\r\n\r\n".encode()
        + b"4\r\nbody\r\n0\r\nX-Checksum: 1\r\n\r\n"
    )
    assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 OK")
    assert bytes(world.first.received).endswith(b"0\r\nx-checksum: 1\r\n\r\n")


FORBIDDEN = [
    "content-length", "transfer-encoding", "host", "authorization", "cookie", "connection", "te",
    "trailer", "proxy-authorization", "x-palyra-worker", "content-type", "via", "upgrade",
]  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", FORBIDDEN)
async def test_a_trailer_that_could_change_the_message_completes_nothing(world, name, speaks):
    async def silent(_head, _writer):
        return

    world.first.respond = silent
    answer = await _post_with_trailers(world, speaks, (name, "1"))
    assert answer.status != 200
    assert world.harness.verdicts()[-1]["reason"] == "egress.request_malformed"
    if speaks == 1:
        await world.first.wait_until_closed()
    assert not bytes(world.first.received).endswith(b"0\r\n\r\n")
    assert not [stream for stream in world.second.streams if stream.ended]


async def test_a_canary_in_a_trailer_quarantines_and_completes_nothing(tmp_path):
    policy = (
        POLICY.replace("quarantine: [metadata_target", "quarantine: [canary, metadata_target")
        + "canaries:\n  - {{id: bait, value: "
        + CANARY
        + "}}\n"
    )
    async with http2_world(tmp_path, policy) as world:
        async with world.worker() as worker:
            stream = worker.ask(worker.fields("POST"), end=False)
            await worker.data(stream.stream_id, b"body")
            worker.head(stream.stream_id, [("x-note", CANARY)], end=True)
            await worker.ended()
        assert world.harness.verdicts()[-1]["reason"] == "egress.canary"
        assert world.harness.verdicts()[-1]["found_in"] == "trailers"
        assert not [stream for stream in world.second.streams if stream.ended]


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ([(b"x", b"1")], True),
        ([(b"grpc-status", b"0")], True),
        ([(b"x y", b"1")], False),
        ([(b"x", b"a\r\nb")], False),
        ([(b":status", b"200")], False),
        ([(b"X-Palyra-Worker", b"1")], False),
        ([(b"x%d" % n, b"1") for n in range(33)], False),
        ([(b"x", b"v" * 8192)], False),
    ],
)
def test_which_trailers_pass(fields, passes):
    assert trailers_problem(fields, ()) is not passes
    assert bool(returnable_trailers(fields)) is passes


async def _with_trailers(session, stream):
    await session.until(lambda: stream.over)
    session.head(stream.stream_id, [(":status", "200")])
    await session.data(stream.stream_id, b"hello")
    fields = [("grpc-status", "0"), ("set-cookie", "a=b"), ("x-palyra-decision", "forged")]
    session.head(stream.stream_id, fields, end=True)


async def test_a_servers_trailers_reach_an_http2_worker_without_what_it_may_not_say(world):
    world.second.respond = _with_trailers
    async with world.worker() as worker:
        answer = await worker.get(te="trailers")
    assert (bytes(answer.body), answer.trailers) == (b"hello", [(b"grpc-status", b"0")])


async def test_an_http1_servers_trailers_reach_an_http2_worker(world):
    world.first.answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\nSet-Cookie: a=b\r\n\r\n"
    )
    async with world.worker(speaks=1) as worker:
        answer = await worker.get()
    assert (bytes(answer.body), answer.trailers) == (b"hello", [(b"x-checksum", b"1")])
    assert answer.ended


async def test_an_http1_servers_trailers_reach_an_http1_worker(world):
    world.first.answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    authority = world.authority(speaks=1)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(f"GET /x HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
    assert (await read_to_end(reader)).endswith(b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n")


# --- interim responses ----------------------------------------------------------------------------


async def _hints(session, stream):
    await session.until(lambda: stream.over)
    for status in ("100", "102", "103"):
        fields = [(":status", status), ("link", "</a.css>; rel=preload"), ("x", "y")]
        session.head(stream.stream_id, fields)
    session.head(stream.stream_id, [(":status", "200")], end=True)


HINT = [(b":status", b"103"), (b"link", b"</a.css>; rel=preload")]


async def test_early_hints_of_an_http2_server_are_passed_on_and_nothing_else(world):
    world.second.respond = _hints
    async with world.worker() as worker:
        answer = await worker.get()
    assert (answer.status, answer.interim) == (200, [HINT])


HINTS_IN_HTTP1 = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX: y\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
)


async def test_early_hints_of_an_http1_server_are_passed_on_in_both_versions(world):
    world.first.answer = HINTS_IN_HTTP1
    async with world.worker(speaks=1) as worker:
        answer = await worker.get()
        assert (answer.status, answer.interim) == (200, [HINT])
    authority = world.authority(speaks=1)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(f"GET /x HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
    got = await read_to_end(reader)
    assert got == (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    )


async def test_a_worker_of_http_1_0_gets_no_interim_response(world):
    world.first.answer = HINTS_IN_HTTP1
    authority = world.authority(speaks=1)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(f"GET /x HTTP/1.0\r\nHost: {authority}\r\n\r\n".encode())
    assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 OK")


@BOTH
async def test_interim_responses_without_end_are_not_passed_on_without_end(world, speaks):
    async def endless(session, stream):
        for _ in range(500):
            session.head(stream.stream_id, HINT)
        session.head(stream.stream_id, [(":status", "200")], end=True)

    world.second.respond = endless
    world.first.answer = HINTS_IN_HTTP1.partition(b"HTTP/1.1 200")[0] * 100 + world.first.answer
    async with world.worker(speaks=speaks) as worker:
        answer = await worker.get()
    assert answer.status == 200
    assert len(answer.interim) <= 16


@BOTH
async def test_interim_responses_without_end_are_bytes_of_the_answer(tmp_path, speaks):
    """What is dropped is counted all the same: the budget ends who sends nothing else."""
    policy = POLICY.replace("paths:", "limits: {{max_response_bytes: 4KiB}}\n    paths:")

    async def endless(session, stream):
        for _ in range(500):
            session.head(stream.stream_id, HINT)
        session.head(stream.stream_id, [(":status", "200")], end=True)

    async with http2_world(tmp_path, policy) as world:
        world.second.respond = endless
        hints = HINTS_IN_HTTP1.partition(b"HTTP/1.1 200")[0]
        world.first.answer = hints * 500 + world.first.answer
        async with world.worker(speaks=speaks) as worker:
            answer = await worker.get()
        assert answer.status == 502
        (transfer,) = world.transfers()
        assert transfer["outcome"] == "egress.response_too_large"


@BOTH
async def test_expect_continue_is_answered_after_the_verdict_and_not_sent_on(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        stream = worker.ask(worker.fields("POST", expect="100-continue"), end=False)
        await worker.until(lambda: stream.interim)
        assert stream.interim == [[(b":status", b"100")]]
        await worker.data(stream.stream_id, b"body", end=True)
        assert (await worker.answer(stream)).status == 200
        refused = worker.ask(worker.fields("POST", "/closed", expect="100-continue"), end=False)
        await worker.answer(refused)
        assert (refused.status, refused.interim) == (403, [])
    assert b"expect" not in bytes(world.first.received).lower()
    assert all("expect" not in stream.names() for stream in world.second.streams)


# --- bodies that are none -------------------------------------------------------------------------


async def test_a_malformed_chunk_behind_a_granted_head_is_answered(world):
    async def silent(_head, _writer):
        return

    world.first.respond = silent
    authority = world.authority(speaks=1)
    _, reader, writer = await world.harness.tunnel(authority)
    writer.write(
        f"POST /x HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    async with asyncio.timeout(60):
        await world.first.arrived.wait()
    writer.write(b"zz\r\nno chunk\r\n")
    got = await read_to_end(reader)
    assert got.startswith(b"HTTP/1.1 400 Palyra: egress.request_malformed\r\n")
    await world.first.wait_until_closed()
    assert b"no chunk" not in bytes(world.first.received)
