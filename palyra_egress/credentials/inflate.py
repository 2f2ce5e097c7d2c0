"""Reads request bodies that are compressed, within bounds. Pure.

`coding_of` says whether a Content-Encoding can be read at all. An `Inflater` takes the compressed
bytes and gives the plain ones in small pieces. It raises `Unreadable` for what is damaged, cut off,
or larger than a body may become: more than `MAX_RATIO` times what came (and a first `FREE_BYTES`),
or `MAX_PLAIN_BYTES`. Whoever cannot read a body to its end cannot say what is in it.
Sources: RFC 9110 section 8.4 (codings), RFC 1950 to 1952 (zlib, deflate, gzip); deflate is also
read without its zlib header, as many clients send it.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

MAX_RATIO: Final = 100
FREE_BYTES: Final = 1 << 20
MAX_PLAIN_BYTES: Final = 8 << 30
PIECE_BYTES: Final = 64 * 1024
GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_GZIP, _ZLIB, _RAW = 31, 15, -15
_AS_IT_IS: Final = frozenset({"", "identity", "aws-chunked"})
_READABLE: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class Unreadable(Exception):
    """The body cannot, or may not, be read to its end."""


def coding_of(values: Sequence[str]) -> str | None:
    """The one compression of a body by its Content-Encoding values: `gzip`, `deflate`, or empty
    where there is none. None means that we cannot read it."""
    named = [part.strip().lower() for value in values for part in value.split(",")]
    codings = [name for name in named if name not in _AS_IT_IS]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in _READABLE:
        return None
    return codings[0]


class Inflater:
    """One compressed body from its beginning to its end."""

    __slots__ = ("_beginning", "_came", "_coding", "_inner", "_plain")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inner: zlib._Decompress | None = None
        self._beginning = b""
        self._came = 0
        self._plain = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain text of the next bytes, in pieces. Raises Unreadable."""
        self._came += len(data)
        if self._inner is None:
            data = self._beginning + data
            if len(data) < 2:
                self._beginning = data
                return
            self._beginning = b""
            self._inner = zlib.decompressobj(self._bits(data))
        is_more = True
        while data or is_more:
            if self._inner.eof:
                if not data:
                    return
                if self._coding == "deflate":
                    raise Unreadable("something follows the end of the body")
                self._inner = zlib.decompressobj(_GZIP)  # gzip may have several members
            try:
                piece = self._inner.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise Unreadable("the body is damaged") from error
            data = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            is_more = len(piece) == PIECE_BYTES  # then some may wait inside the decompressor
            self._count(len(piece))
            yield piece

    def finish(self) -> None:
        """Nothing follows. Raises Unreadable if the body has not ended."""
        if self._came and (self._inner is None or not self._inner.eof):
            raise Unreadable("the body is cut off")

    def _bits(self, data: bytes) -> int:
        if self._coding != "deflate":
            return _GZIP
        has_header = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
        return _ZLIB if has_header else _RAW

    def _count(self, plain: int) -> None:
        self._plain += plain
        if self._plain > min(MAX_PLAIN_BYTES, FREE_BYTES + MAX_RATIO * self._came):
            raise Unreadable("the body becomes too large")
