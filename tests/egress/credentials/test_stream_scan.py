"""What may leave of a stream: nothing that completes a watched value, and all of everything else.

Every property runs over random pieces, because a worker chooses how its bytes are cut.
"""

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.inflate import FREE_BYTES, MAX_RATIO
from palyra_egress.credentials.patterns import Finding, PatternSet, Watched
from palyra_egress.credentials.stream_scan import Stop, StreamScanner
from palyra_egress.credentials.text_scan import MIN_OPEN
from palyra_egress.reasons import Reason
from tests.egress.credentials.leaving import SECRET, WRITTEN

SETS = (PatternSet([Watched(SECRET, Reason.CREDENTIAL_LEAK, "vault:test")]),)
CODED = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate without header": lambda body: zlib.compress(body, wbits=-15),
    "gzip that is not declared": gzip.compress,
    "gzip of two members": lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:]),
}
CLAIMED = {
    "deflate without header": "deflate",
    "gzip that is not declared": "",
    "gzip of two members": "gzip",
}
HARMLESS = [
    b"%",
    b"\\",
    b"\\\\\\\\",
    b"%2",
    b"\\u00",
    b"%25",
    b"sk-live",
    b'{"a": "b\\n"}',
    b" " * 70,
]


def scanner(coding: str = "") -> StreamScanner:
    return StreamScanner(SETS, CLAIMED.get(coding, coding))


def run(scanner: StreamScanner, pieces: list[bytes]) -> tuple[bytes, Finding | Stop | None]:
    """All that came out, and why it stopped."""
    out = b""
    for piece in pieces:
        passage = scanner.push(piece)
        out += passage.data
        if passage.stop is not None:
            assert scanner.push(b"more").data == scanner.finish().data == b""
            return out, passage.stop
    passage = scanner.finish()
    return out + passage.data, passage.stop


def cut(body: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    while at < len(body):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(body[at : at + size])
        at += size
    return pieces


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 100_000])
@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("name", WRITTEN)
def test_a_secret_is_found_however_it_is_written_compressed_and_cut(name, coding, size):
    written = WRITTEN[name](SECRET)
    body = CODED[coding](b"something before " + written + b" and after")
    out, stop = run(scanner(coding), cut(body, [size]))
    assert isinstance(stop, Finding), stop
    assert (stop.reason, stop.name) == (Reason.CREDENTIAL_LEAK, "vault:test")
    assert body.startswith(out)
    if coding == "":
        assert written not in out


@given(
    st.binary(min_size=0, max_size=200),
    st.binary(max_size=200),
    st.sampled_from([b"", *HARMLESS]),
    st.sampled_from(sorted(WRITTEN)),
    st.sampled_from(sorted(CODED)),
    st.lists(st.integers(1, 80), min_size=1, max_size=6),
)
def test_a_secret_is_found_between_any_bytes_in_any_pieces(
    before, after, trick, name, coding, sizes
):
    body = CODED[coding](before + trick + WRITTEN[name](SECRET) + after)
    _, stop = run(scanner(coding), cut(body, sizes))
    assert isinstance(stop, Finding), stop


@given(
    st.lists(st.binary(max_size=120) | st.sampled_from(HARMLESS), max_size=12),
    st.sampled_from(sorted(CODED)),
    st.lists(st.integers(1, 200), min_size=1, max_size=6),
)
def test_what_holds_no_secret_comes_out_unchanged_and_complete(parts, coding, sizes):
    body = CODED[coding](b"".join(parts))
    assert run(scanner(coding), cut(body, sizes)) == (body, None)


@given(st.binary(min_size=12, max_size=40), st.integers(0, 30), st.data())
def test_any_secret_is_found_in_any_form(value, before, data):
    secret = bytes(0x21 + byte % 0x5E for byte in value)
    sets = (PatternSet([Watched(secret, Reason.CANARY, "c")]),)
    name = data.draw(st.sampled_from(sorted(WRITTEN)))
    body = b"." * before + WRITTEN[name](secret) + b"."
    _, stop = run(
        StreamScanner(sets), cut(body, data.draw(st.lists(st.integers(1, 9), min_size=1)))
    )
    assert isinstance(stop, Finding)


def test_no_more_than_the_first_signs_of_a_secret_leave_before_it_is_found():
    for size in (1, 2, 3, 7):
        out, stop = run(scanner(), cut(b"body " + SECRET, [size]))
        assert isinstance(stop, Finding)
        assert len(out) < len(b"body ") + MIN_OPEN


def test_ordinary_pieces_are_not_held_back():
    stream = scanner()
    for piece in (b'{"a": 1, ', b'"b": "x"}', b"\x00\x01\x02", b"s", b"a sk", b"100%", b"a\\"):
        assert stream.push(piece).data == piece


def test_what_looked_like_a_beginning_leaves_once_it_is_none():
    stream = scanner()
    assert stream.push(b"a sk-live").data == b"a "
    assert stream.push(b"-and no more").data == b"sk-live-and no more"
    assert stream.push(b" sk-live").data == b" "
    assert stream.finish().data == b"sk-live"


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"this is no gzip", "gzip"),
        (gzip.compress(b"x" * 100)[:-3], "gzip"),
        (gzip.compress(b"x" * 100) + b"and more", "gzip"),
        (zlib.compress(b"x" * 100) + b"and more", "deflate"),
        (zlib.compress(b"x" * 100)[:-5], "deflate"),
        (b"\x1f", "gzip"),
        (gzip.compress(bytes(FREE_BYTES * 3)), "gzip"),  # a bomb
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_claimed_compression_that_cannot_be_read_to_its_end_stops_the_stream(body, coding, size):
    _, stop = run(scanner(coding), cut(body, [size]))
    assert stop is Stop.UNREADABLE


def test_a_bomb_is_given_up_on_before_it_has_grown_much():
    assert MAX_RATIO == 100
    bomb = gzip.compress(bytes(200 << 20))
    tracemalloc.start()
    try:
        _, stop = run(scanner("gzip"), cut(bomb, [16384]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stop is Stop.UNREADABLE
    assert peak < 16 << 20


def test_a_compressed_file_that_nobody_declared_is_let_go_when_it_cannot_be_read():
    for body in (b"\x1f\x8b\x08 and no more of it", gzip.compress(bytes(FREE_BYTES * 3))):
        assert run(scanner(), cut(body, [10_000])) == (body, None)


def test_an_empty_body_is_no_cut_off_one():
    assert run(scanner("gzip"), []) == (b"", None)


ENDLESS = {
    "noise": lambda: random.randbytes(1 << 16),
    "a beginning and white space": lambda: SECRET[:-1] + b" " * (1 << 16),
    "beginnings": lambda: SECRET[:-1] * 2000,
    "escapes": lambda: b"\\u0025" * 10_000,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_memory_does_not_grow_with_the_stream(name):
    stream, piece = scanner(), ENDLESS[name]()
    for _ in range(4):
        stream.push(piece)
    tracemalloc.start()
    try:
        sent = 0
        for _ in range(60):
            sent += len(stream.push(piece).data)
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert sent > 50 * len(piece)
    assert grown < 1 << 20


def test_empty_blocks_after_a_beginning_do_not_pile_up():
    deflater = zlib.compressobj(wbits=31)
    stream = scanner("gzip")
    stream.push(deflater.compress(SECRET[:-1]) + deflater.flush(zlib.Z_SYNC_FLUSH))
    empty, stop = b"\x00\x00\x00\xff\xff" * 1000, None
    for _ in range(100):
        stop = stop or stream.push(empty).stop
    assert stop is Stop.UNREADABLE
