"""Many secrets, one matcher: which of them stands in a text, and could one begin at its end. Pure.

A `PatternSet` is made of what is watched for and answers in time that grows with the text, not with
the number of patterns (Aho-Corasick). Texts are given in folded form (`spellings.folded`).
Invariants: the same text and patterns give the same answer however the patterns are ordered but for
which of several findings is told; nothing of a set shows a secret in a `repr`.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, Implementation

from palyra_egress.credentials.spellings import MIN_SPELLING, spellings
from palyra_egress.reasons import Reason

MAX_WATCHED_BYTES: Final = 4096
"""Of a longer secret this much, from its beginning, is looked for."""
_FAST_BYTES: Final = 64 * 1024  # patterns of more than this would take long to compile for speed
# Capitals do not stand in folded text. With few patterns alone the library would first look for
# their rare bytes, which in base64 are everywhere: up to ten times slower than all at once.
_NEVER_THERE: Final = tuple(bytes((sign,)) for sign in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True, slots=True)
class Watched:
    """One value that must not leave: `reason` is what it is to send it, `name` is for people (a
    canary's id, a secret's reference) and tells nothing of the value."""

    value: bytes = field(repr=False)
    reason: Reason
    name: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A watched value was found: which, and in what form it was written."""

    reason: Reason
    name: str
    form: str


def _automaton(patterns: list[bytes]) -> BytesAhoCorasick:
    size = sum(len(pattern) for pattern in patterns)
    kind = Implementation.DFA if size <= _FAST_BYTES else None
    return BytesAhoCorasick([*patterns, *_NEVER_THERE], implementation=kind)


class PatternSet:
    """The compiled form of everything that is watched for; see the module."""

    __slots__ = ("_automaton", "_beginnings", "_findings", "_patterns", "longest")

    def __init__(self, watched: Iterable[Watched]) -> None:
        """The first of several equal values gives its name."""
        findings: dict[bytes, Finding] = {}
        for one in watched:
            for spelling, form in spellings(one.value.strip()[:MAX_WATCHED_BYTES]).items():
                findings.setdefault(spelling, Finding(one.reason, one.name, form))
        self._patterns = sorted(findings)
        self._findings = [findings[pattern] for pattern in self._patterns]
        self.longest: int = max(map(len, self._patterns), default=0)
        self._automaton = _automaton(self._patterns)
        self._beginnings = _automaton(sorted({one[:MIN_SPELLING] for one in self._patterns}))

    def __len__(self) -> int:
        """How many spellings are looked for."""
        return len(self._patterns)

    def find(self, text: bytes) -> Finding | None:
        """What is found in a folded text; of several, the one that ends first."""
        found = self._automaton.find_matches_as_indexes(text)
        return self._findings[found[0][0]] if found else None

    def begins_at(self, text: bytes) -> int:
        """Where the first part of a folded text begins that could be the beginning of a pattern,
        cut off at the text's end; the text's length if there is none."""
        first = max(0, len(text) - self.longest + 1)
        tail = text[first:]
        marks = self._beginnings.find_matches_as_indexes(tail, overlapping=True)
        starts: list[int] = [mark[1] for mark in marks]
        starts += range(max(0, len(tail) - MIN_SPELLING + 1), len(tail))
        for start in starts:
            if self._is_beginning(tail[start:]):
                return first + start
        return len(text)

    def _is_beginning(self, text: bytes) -> bool:
        place = bisect_left(self._patterns, text)
        return place < len(self._patterns) and self._patterns[place].startswith(text)
