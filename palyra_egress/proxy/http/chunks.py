"""Reads chunked bodies: h11's reader, which is strict, and before it the usual case, many at once.

A chunk is a size in hexadecimal digits, perhaps an extension, CRLF, its bytes, CRLF. h11 takes some
microseconds for each, so that one read of the smallest of them would keep the loop from everybody
else. Whole chunks are taken here in one go, and their extensions dropped as h11 drops them; all
else (the last chunk and its trailers, one that has not come whole, one that is wrong) is left in
the buffer for h11.
Invariant: what is read, and what is refused, is exactly what h11 reads and refuses.
Source: RFC 9112 section 7.1.
"""

import re
from typing import Final

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy.layers.http._http1 import TBodyReader, make_body_reader

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,5}+)(?:;[^\r\n]*+|[ \t]*+)\r\n")


def body_reader(expected_size: int | None) -> TBodyReader:
    """What reads a body of this size; None: it comes in chunks, -1: until the connection ends."""
    return ManyChunks() if expected_size is None else make_body_reader(expected_size)


class ManyChunks(ChunkedReader):
    """Gives all whole chunks at the front of the buffer as one piece of data."""

    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        if data := self._whole_chunks(buf):
            return h11.Data(data=data)
        return super().__call__(buf)

    def _whole_chunks(self, buf: ReceiveBuffer) -> bytes:
        if self._bytes_in_chunk or self._reading_trailer:
            return b""
        text, owed = bytes(buf), self._bytes_to_discard
        if not text.startswith(owed):
            return b""
        at, taken = len(owed), list[bytes]()
        while (line := _CHUNK_LINE.match(text, at)) is not None:
            begin = line.end()
            end = begin + int(line[1], base=16)
            if end == begin or text[end : end + 2] != b"\r\n":
                break
            taken.append(text[begin:end])
            at = end + 2
        if taken:
            self._bytes_to_discard = b""
            buf.maybe_extract_at_most(at)
        return b"".join(taken)
