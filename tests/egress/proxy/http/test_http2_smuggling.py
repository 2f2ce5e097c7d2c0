"""No byte of a stream is read as a second request: asserted on the raw bytes at an HTTP/1 server.

A stream's body has frames; towards HTTP/1 it must have a length or chunks, or the server takes it
for the next request, which nobody judged. Every row here is sent as raw fields that the h2 library
would not send by itself.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.egress.proxy.http.h2_world import Http2World, http2_world
from tests.fakes.h2_peer import frame

SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: api.example\r\n\r\n"
HEADERS, DATA, RST_STREAM, CONTINUATION = 1, 0, 3, 9
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path) as made:
        yield made


def requests_of(raw: bytes) -> list[tuple[str, bytes]]:
    """What a strict HTTP/1.1 server reads: each request line with its body."""
    found = []
    while raw:
        head, separator, raw = raw.partition(b"\r\n\r\n")
        assert separator, head
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = [one.partition(":") for one in lines]
        named = {name.lower(): value.strip() for name, _, value in headers}
        assert len(named) == len(headers), "a header stands twice"
        assert not {"content-length", "transfer-encoding"} <= set(named)
        body = b""
        if "transfer-encoding" in named:
            assert named["transfer-encoding"] == "chunked"
            while True:
                size, _, raw = raw.partition(b"\r\n")
                if not int(size, 16):
                    assert raw.startswith(b"\r\n")
                    raw = raw[2:]
                    break
                body, raw = body + raw[: int(size, 16)], raw[int(size, 16) + 2 :]
        else:
            length = int(named.get("content-length", "0"))
            body, raw = raw[:length], raw[length:]
            assert len(body) == length, "the body is cut"
        found.append((line, body))
    return found


async def test_a_body_without_a_length_goes_to_http1_in_chunks(world):
    async with world.worker(speaks=1) as worker:
        answer = await worker.post(SMUGGLED)
        assert answer.status == 200
        assert (await worker.get("/x/2")).status == 200
    assert requests_of(bytes(world.first.received)) == [
        ("POST /x HTTP/1.1", SMUGGLED),
        ("GET /x/2 HTTP/1.1", b""),
    ]


async def test_a_body_with_a_length_keeps_it(world):
    async with world.worker(speaks=1) as worker:
        answer = await worker.post(SMUGGLED, content_length=str(len(SMUGGLED)))
        assert answer.status == 200
    assert requests_of(bytes(world.first.received)) == [("POST /x HTTP/1.1", SMUGGLED)]
    assert b"transfer-encoding" not in bytes(world.first.received).lower()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
async def test_a_request_that_ends_with_its_head_has_no_body_to_be_read(world, method):
    async with world.worker(speaks=1) as worker:
        for _ in range(2):
            await worker.answer(worker.ask(worker.fields(method)))
    assert [body for _, body in requests_of(bytes(world.first.received))] == [b"", b""]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_get_with_a_body_nobody_announced_is_framed_too(world, method):
    async with world.worker(speaks=1) as worker:
        stream = worker.ask(worker.fields(method), end=False)
        await worker.data(stream.stream_id, SMUGGLED, end=True)
        await worker.answer(stream)
    assert requests_of(bytes(world.first.received)) == [(f"{method} /x HTTP/1.1", SMUGGLED)]


WRONG_LENGTHS = {
    "more than its length": ("5", SMUGGLED),
    "less than its length": ("500", SMUGGLED),
    "a length of zero": ("0", SMUGGLED),
}


@pytest.mark.parametrize("speaks", [1, 2])
@pytest.mark.parametrize("row", WRONG_LENGTHS)
async def test_a_body_that_is_not_as_long_as_it_says_is_never_completed(world, row, speaks):
    length, body = WRONG_LENGTHS[row]
    async with world.worker(speaks=speaks) as worker:
        stream = worker.ask(worker.fields("POST", content_length=length), end=False)
        worker.raw(frame(DATA, END_STREAM, stream.stream_id, body))
        await worker.ended()
    received = bytes(world.first.received)
    assert b"/admin" not in received.partition(b"\r\n\r\n")[2][: int(length)][:5]
    assert len(received.partition(b"\r\n\r\n")[2]) <= int(length)
    assert not [stream for stream in world.second.streams if stream.ended]
    assert world.harness.verdicts()[-1]["reason"] == "egress.request_malformed"


async def test_trailers_do_not_complete_a_body_that_is_too_short(world):
    async with world.worker(speaks=1) as worker:
        stream = worker.ask(worker.fields("POST", content_length="500"), end=False)
        await worker.data(stream.stream_id, SMUGGLED)
        worker.head(stream.stream_id, [("x-end", "1")], end=True)
        await worker.answer(stream)
        assert stream.status != 200
    await world.first.wait_until_closed()
    assert len(world.first.heads) == 2, "the second is still the body of the first"
    assert bytes(world.first.received).endswith(SMUGGLED), "nothing follows"


MALFORMED = {
    "a length where nothing follows": {"content-length": "43"},
    "a length with a sign": {"content-length": "+0"},
    "a length with a space": {"content-length": "0 "},
    "transfer-encoding": {"transfer-encoding": "chunked"},
    "connection": {"connection": "close"},
    "keep-alive": {"keep-alive": "1"},
    "proxy-connection": {"proxy-connection": "keep-alive"},
    "upgrade": {"upgrade": "h2c"},
    "te that is not trailers": {"te": "gzip"},
    "te with more than trailers": {"te": "trailers, chunked"},
    "an upper-case name": {"X-Upper": "1"},
    "a name with a space": {"x y": "1"},
    "a name with a colon": {"x:y": "1"},
    "a name with a line end": {"x\r\ny": "1"},
    "an empty name": {"": "1"},
    "a value with CR": {"x": "a\rb"},
    "a value with LF": {"x": "a\nb"},
    "a value with CR LF": {"x": "1\r\ntransfer-encoding: chunked"},
    "a value with NUL": {"x": "a\0b"},
    "a value that begins with a space": {"x": " a"},
    "a value that ends with a tab": {"x": "a\t"},
    "a path with a space": {":path": "/x HTTP/1.1\r\nHost: evil.example\r\n\r\n"},
    "a path with a plain space": {":path": "/x y"},
    "a path with CR": {":path": "/x\ry"},
    "an empty path": {":path": ""},
    "an asterisk": {":path": "*"},
    "a fragment": {":path": "/x#y"},
    "a method with a space": {":method": "GET /admin HTTP/1.1\r\n\r\nGET"},
    "an empty method": {":method": ""},
    "a lower-case method": {":method": "get"},
    "TRACE": {":method": "TRACE"},
    "CONNECT": {":method": "CONNECT"},
    "extended CONNECT": {":method": "CONNECT", ":protocol": "websocket"},
    "an unknown pseudo-header": {":x": "1"},
    "a response's pseudo-header": {":status": "200"},
    "scheme http": {":scheme": "http"},
    "an empty authority": {":authority": ""},
    "userinfo": {":authority": "user@api.example"},
    "an authority with CR LF": {":authority": "api.example\r\nx: y"},
    "two authorities": {":authority": "api.example, evil.example"},
}


@pytest.mark.parametrize("speaks", [1, 2])
@pytest.mark.parametrize("row", MALFORMED)
async def test_a_malformed_stream_is_answered_on_its_stream_and_reaches_nobody(world, row, speaks):
    async with world.worker(speaks=speaks) as worker:
        good = dict(worker.fields())
        fields = {**good, **MALFORMED[row]}
        answer = await worker.answer(worker.ask(sorted(fields.items(), key=_pseudo_first)))
        assert answer.status == 400, bytes(answer.body)
        assert world.harness.verdicts()[-1]["effect"] == "deny"
        world.nothing_arrived()
        assert (await worker.get("/x/2")).status == 200, "the other streams go on"


def _pseudo_first(field: tuple[str, str]) -> bool:
    return not field[0].startswith(":")


OUT_OF_ORDER = {
    "a pseudo-header behind a field": lambda f: [*f[:3], ("x", "1"), f[3]],
    "a method twice": lambda f: [*f, (":method", "POST")],
    "a path twice": lambda f: [f[0], f[2], *f],
    "an authority twice": lambda f: [f[3], *f],
    "a scheme missing": lambda f: [f[0], f[2], f[3]],
    "an authority missing": lambda f: f[:3],
    "a path missing": lambda f: [f[0], f[1], f[3]],
    "a method missing": lambda f: f[1:],
    "two lengths": lambda f: [*f, ("content-length", "0"), ("content-length", "0")],
    "two hosts": lambda f: [*f, ("host", f[3][1]), ("host", f[3][1])],
    "201 fields": lambda f: [*f, *[("x", "1")] * 201],
}


@pytest.mark.parametrize("row", OUT_OF_ORDER)
async def test_fields_that_stand_where_they_must_not(world, row):
    async with world.worker(speaks=1) as worker:
        answer = await worker.answer(worker.ask(OUT_OF_ORDER[row](worker.fields())))
        assert answer.status == 400
        world.nothing_arrived()
        assert (await worker.get()).status == 200


@pytest.mark.parametrize("name", [":authority", "host"])
async def test_each_stream_must_name_the_tunnels_host(world, name):
    async with world.worker(speaks=1) as worker:
        for other in ("evil.example", "api.example:1", "www.api.example"):
            fields = [(n, v) for n, v in worker.fields() if n != name]
            answer = await worker.answer(worker.ask([*fields[:4], (name, other), *fields[4:]]))
            assert answer.status == 421, bytes(answer.body)
        world.nothing_arrived()
        same = await worker.get(host=worker.authority)
        assert same.status == 200


async def test_a_stream_that_is_reset_before_its_body_is_complete_is_never_completed(world):
    async def silent(_head, _writer):
        return

    world.first.respond = silent
    async with world.worker(speaks=1) as worker:
        stream = worker.ask(worker.fields("POST"), end=False)
        await worker.data(stream.stream_id, b"half")
        async with asyncio.timeout(60):
            await world.first.arrived.wait()
        worker.reset(stream.stream_id)
        await world.first.wait_until_closed()
        world.first.respond = None
        assert (await worker.get("/x/2")).status == 200
    first = bytes(world.first.received).partition(b"GET /x/2")[0]
    assert not first.endswith(b"0\r\n\r\n")
    assert sorted(entry["outcome"] for entry in world.transfers()) == ["aborted", "complete"]


async def test_a_length_that_differs_in_a_response_ends_at_the_proxy(world):
    """An HTTP/2 server that says more than it sends would make an HTTP/1 worker wait, or read the
    next answer as this one's body."""

    async def lies(session, stream):
        await session.until(lambda: stream.over)
        session.head(stream.stream_id, [(":status", "200"), ("content-length", "5")], end=True)

    world.second.respond = lies
    async with world.worker() as worker:
        answer = await worker.get()
        assert answer.status == 502
        assert b"egress.upstream_protocol" in answer.body


def test_the_reader_of_raw_bytes_sees_a_smuggled_request():
    """The oracle of this file: an unframed body is a second request to it."""
    head = b"POST /x HTTP/1.1\r\nHost: api.example\r\n\r\n"
    assert [line for line, _ in requests_of(head + SMUGGLED)] == [
        "POST /x HTTP/1.1",
        "GET /admin HTTP/1.1",
    ]
