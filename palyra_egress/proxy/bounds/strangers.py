"""The connections that have not shown whose they are yet: who of them makes room for others. Pure.

They are kept by source, in the order in which they came. When room is needed a source that floods
gives it, the one that has the most: its connection that has waited longest. Where none floods, many
sources may be one attacker, and of all of them the longest waiting goes. Honest clients speak at
once, so they are not here for long. Times are monotonic milliseconds.
"""

from dataclasses import dataclass, field
from typing import Final

FLOOD_PART: Final = 8
"""A source with more than this part of all strangers floods."""


@dataclass(slots=True)
class Strangers[T]:
    """`T` is a connection; it is here once at most."""

    _by_source: dict[str, dict[T, int]] = field(default_factory=dict)
    _source_of: dict[T, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._source_of)

    def add(self, connection: T, source: str, now_monotonic_ms: int) -> None:
        """A connection came."""
        self._source_of[connection] = source
        self._by_source.setdefault(source, {})[connection] = now_monotonic_ms

    def remove(self, connection: T) -> None:
        """It has shown whose it is, or is over."""
        source = self._source_of.pop(connection, None)
        if source is None:
            return
        held = self._by_source[source]
        del held[connection]
        if not held:
            del self._by_source[source]

    def to_make_room(self, came_before_ms: int) -> T | None:
        """The one that has to go for another, or None: it came before this time, or at it."""
        if not self._by_source:
            return None
        most = max(self._by_source.values(), key=len)
        floods = len(most) * FLOOD_PART > len(self)
        longest = next(iter(most if floods else self._source_of))
        since_ms = self._by_source[self._source_of[longest]][longest]
        return longest if since_ms <= came_before_ms else None
