"""Looks for watched values in a text that comes in pieces of any size. Pure.

Each piece is read as it stands and with its escapes resolved once and twice. `feed` says what is
found, and `safe` how much of the text so far no later piece can make a part of a finding (but for
its first signs: a beginning of fewer than `MIN_OPEN` signs is remembered and not held back).
Invariants: a value is found whatever the pieces are; what is safe never becomes unsafe; memory is
bounded by `MAX_KEPT_BYTES` and eight times the longest spelling. Beyond that a value that is filled
up with white space is no longer one; the work per byte stays bounded for the smallest pieces too.
"""

from collections.abc import Sequence
from typing import Final

from palyra_egress.credentials.patterns import Finding, PatternSet
from palyra_egress.credentials.spellings import (
    MAX_ESCAPE_BYTES,
    folded,
    unescaped,
    without_cut_escape,
)

LEVELS: Final = 2
MIN_OPEN: Final = 4
MAX_KEPT_BYTES: Final = 64 * 1024
_SMALL_BYTES: Final = 4096
_PART: Final = 16  # a large window is read again once it has grown by this part


def _resolved(text: bytes, level: int) -> bytes:
    """The text with `level` levels of escapes resolved, without what may still be incomplete."""
    for _ in range(level):
        text = unescaped(without_cut_escape(text))
    return without_cut_escape(text) if level else text


class TextScanner:
    """One text from its beginning to its end; `taken` and `safe` count its bytes."""

    __slots__ = ("_most", "_sets", "_waiting", "_window", "safe", "taken")

    def __init__(self, sets: Sequence[PatternSet]) -> None:
        self.taken = 0
        self.safe = 0
        self._sets = tuple(sets)
        self._window = b""
        self._waiting = bytearray()
        self._most = MAX_KEPT_BYTES + 8 * max((one.longest for one in self._sets), default=0)

    def feed(self, data: bytes, *, last: bool = False) -> Finding | None:
        """Take the next piece; `last` says that none follows."""
        self.taken += len(data)
        if self._window or self._waiting:
            self._waiting += data
            size = len(self._window)
            if not last and size > _SMALL_BYTES and len(self._waiting) * _PART < size:
                return None
            data = self._window + bytes(self._waiting)
            self._waiting.clear()
        return self._look(data, last=last)

    def _look(self, window: bytes, *, last: bool) -> Finding | None:
        kept = held = 0  # how many bytes at the end may still become a part of a finding
        text = window
        for level in range(LEVELS + 1):
            if level:
                whole = text if last else without_cut_escape(text)
                resolved = unescaped(whole)
                if resolved == text:
                    break
                text = resolved
            simple = folded(text)
            for patterns in self._sets:
                if (finding := patterns.find(simple)) is not None:
                    return finding
            if last:
                continue
            certain = without_cut_escape(text)
            if len(certain) < len(text):  # an escape may be completed by what comes
                kept = max(kept, MAX_ESCAPE_BYTES)
            opened = self._open_signs(folded(certain) if level else simple)
            if opened:
                needed = self._bytes_of(window, opened, level)
                kept = max(kept, needed)
                held = max(held, needed if opened >= MIN_OPEN else 0)
        kept = min(kept, len(window), self._most)
        self._window = window[len(window) - kept :]
        self.safe = max(self.safe, self.taken - min(held, kept))
        return None

    def _open_signs(self, simple: bytes) -> int:
        """How many signs at the end of a folded text may be the beginning of a pattern."""
        return max((len(simple) - one.begins_at(simple) for one in self._sets), default=0)

    def _bytes_of(self, window: bytes, signs: int, level: int) -> int:
        """How many bytes at the window's end hold at least the last `signs` of its folded text."""
        count = signs
        while count < min(len(window), self._most):
            if len(folded(_resolved(window[-count:], level))) >= signs:
                break
            count *= 2
        return count + (MAX_ESCAPE_BYTES if level else 0)
