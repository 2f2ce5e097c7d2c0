"""Chunked bodies: read as h11 reads them, whatever comes in whichever pieces, and in few steps."""

import h11
import pytest
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.http.chunks import ManyChunks, body_reader


def read_all(reader: ChunkedReader, pieces: list[bytes]) -> tuple[bytes, object, bytes, int]:
    """The body, how it ended (its trailers, `malformed`, or None: not yet), what is left, and in
    how many steps it was read."""
    buffer, body, steps = ReceiveBuffer(), bytearray(), 0
    for piece in pieces:
        buffer += piece
        try:
            while (got := reader(buffer)) is not None:
                steps += 1
                if isinstance(got, h11.EndOfMessage):
                    return bytes(body), list(got.headers), bytes(buffer), steps
                body += got.data
        except h11.ProtocolError:
            return bytes(body), "malformed", b"", steps
    return bytes(body), None, b"", steps


SIZES = st.sampled_from([b"0", b"1", b"01", b"2", b"A", b"a", b"10", b"0x1", b"-1", b" 1", b"1 "])
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b";a=b\r\n", b" \r\n", b""])
CHUNKS = st.one_of(
    st.binary(min_size=1, max_size=40).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    st.binary(min_size=1, max_size=40).map(lambda data: b"%X;x\r\n%b\r\n" % (len(data), data)),
    st.tuples(SIZES, ENDS, st.binary(max_size=3), ENDS).map(b"".join),
    st.sampled_from([b"0\r\n\r\n", b"0\r\nsum: 1\r\n\r\n", b"0\r\nbad\r\n\r\n", b"\r\n"]),
)


@given(st.lists(CHUNKS, max_size=12).map(b"".join), st.data())
def test_what_is_read_and_refused_is_what_h11_reads_and_refuses(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read_all(ManyChunks(), pieces)[:3] == read_all(ChunkedReader(), pieces)[:3]


@pytest.mark.parametrize(
    "chunk", [b"1\r\nx\r\n", b"001\r\nx\r\n", b"1;a=b\r\nx\r\n", b"1 \r\nx\r\n"]
)
def test_the_smallest_chunks_of_one_read_are_one_piece(chunk):
    text = chunk * 5_000
    body, end, rest, steps = read_all(ManyChunks(), [text[:20_001], text[20_001:], b"0\r\n\r\n"])
    assert (body, end, rest) == (b"x" * 5_000, [], b"")
    assert steps < 10


def test_a_body_with_a_length_is_read_by_its_length():
    assert read_all(body_reader(3), [b"abcd"])[0] == b"abc"
