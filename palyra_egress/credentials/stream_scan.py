"""Looks for watched values in a stream of bytes, and says which of them may go on. Pure.

The seam for everything that leaves in pieces: request bodies now, the frames of upgraded
connections by the same two calls. `push` takes bytes and gives those that may leave; `finish` gives
the rest. Either may say that the stream must stop: a `Finding`, or `UNREADABLE` where a body claims
a compression and cannot be read. After that nothing may leave any more.
A body that claims none but begins as gzip is read both ways, as far as it can be.
Invariants: what was pushed comes out in order, unchanged and complete, or the stream stopped;
memory is constant; the bytes that complete a finding never come out.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from palyra_egress.credentials.inflate import GZIP_MAGIC, Inflater, Unreadable
from palyra_egress.credentials.patterns import Finding, PatternSet
from palyra_egress.credentials.text_scan import TextScanner

MAX_HELD_BYTES: Final = 256 * 1024
_STEP_BYTES: Final = 64  # how finely a compressed stream is let go


class Stop(Enum):
    """Why a stream must stop without a finding."""

    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Passage:
    """What may leave now, and whether the stream must stop."""

    data: bytes = b""
    stop: Finding | Stop | None = None


class _Compressed:
    """The plain text inside a compressed stream, and how much of the stream is safe."""

    __slots__ = ("_ends", "_inflater", "_text", "came", "safe")

    def __init__(self, coding: str, sets: Sequence[PatternSet]) -> None:
        self.came = 0
        self.safe = 0
        self._inflater = Inflater(coding)
        self._text = TextScanner(sets)
        self._ends: deque[tuple[int, int]] = deque()  # (bytes of the stream, of its plain text)

    def feed(self, data: bytes, *, last: bool) -> Finding | None:
        """Raises Unreadable."""
        for piece in self._inflater.feed(data):
            if (finding := self._text.feed(piece)) is not None:
                return finding
        if last:
            self._inflater.finish()
            if (finding := self._text.feed(b"", last=True)) is not None:
                return finding
        self.came += len(data)
        if self._ends and self.came - self._ends[-1][0] < _STEP_BYTES:
            self._ends.pop()
        self._ends.append((self.came, self._text.taken))
        while self._ends and self._ends[0][1] <= self._text.safe:
            self.safe = self._ends.popleft()[0]
        return None


class StreamScanner:
    """One stream. `coding` is the compression it claims: `gzip`, `deflate` or none."""

    __slots__ = ("_beginning", "_came", "_claims", "_held", "_inside", "_plain", "_sets", "_stop")

    def __init__(self, sets: Sequence[PatternSet], coding: str = "") -> None:
        self._sets = tuple(sets)
        self._claims = bool(coding)
        self._inside = _Compressed(coding, self._sets) if coding else None
        self._plain = None if coding else TextScanner(self._sets)
        self._beginning: bytes | None = None if coding else b""
        self._held = bytearray()
        self._came = 0
        self._stop: Finding | Stop | None = None

    def push(self, data: bytes) -> Passage:
        """Take the next bytes; which bytes may leave."""
        return self._take(data, last=False)

    def finish(self) -> Passage:
        """Nothing follows; the rest may leave."""
        return self._take(b"", last=True)

    def _take(self, data: bytes, *, last: bool) -> Passage:
        if self._stop is None:
            self._came += len(data)
            self._stop = self._look(data, last=last)
        if self._stop is not None:
            self._held.clear()
            return Passage(stop=self._stop)
        unsafe = 0 if last else self._came - self._safe()
        if not unsafe and not self._held:
            return Passage(data)
        self._held += data
        free = len(self._held) - unsafe
        if free <= 0:
            return Passage()
        out = bytes(self._held[:free])
        del self._held[:free]
        return Passage(out)

    def _look(self, data: bytes, *, last: bool) -> Finding | Stop | None:
        if self._plain is not None and (found := self._plain.feed(data, last=last)) is not None:
            return found
        if self._beginning is not None:
            data = self._beginning = self._beginning + data
            if len(data) >= len(GZIP_MAGIC):
                self._beginning = None
                if data.startswith(GZIP_MAGIC):
                    self._inside = _Compressed("gzip", self._sets)
        if self._inside is None:
            return None
        try:
            found = self._inside.feed(data, last=last)
            if len(self._held) > MAX_HELD_BYTES:
                raise Unreadable("too much of the body says nothing yet")
        except Unreadable:
            if self._claims:
                return Stop.UNREADABLE
            self._inside, found = None, None
        return found

    def _safe(self) -> int:
        safe = self._came if self._plain is None else self._plain.safe
        return safe if self._inside is None else min(safe, self._inside.safe)
