"""The one place that reads a clock. Everything else takes `now_unix_ms` as an argument.

The time given is the wall clock's, but it never runs slower than real time does: after a step back
it goes on from where it was, at the pace of the monotonic clock, until the wall clock has caught
up. So a clock that is set back lengthens no lease and revives nothing while the process runs; a
step forward is followed at once, which only ends things earlier.
"""

import time
from collections.abc import Callable


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class ForwardClock:
    """Unix milliseconds that grow at least as fast as the monotonic clock."""

    def __init__(
        self,
        wall_ms: Callable[[], int] = _wall_ms,
        monotonic_ms: Callable[[], int] = _monotonic_ms,
    ) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._anchor = (wall_ms(), monotonic_ms())

    def now_unix_ms(self) -> int:
        """The wall clock's time, or the time it should have by now if that is later."""
        wall, monotonic = self._wall_ms(), self._monotonic_ms()
        anchored_wall, anchored_monotonic = self._anchor
        expected = anchored_wall + monotonic - anchored_monotonic
        if wall < expected:
            return expected
        self._anchor = (wall, monotonic)
        return wall


_clock = ForwardClock()


def now_unix_ms() -> int:
    """Unix milliseconds, never slower than real time; see the module."""
    return _clock.now_unix_ms()
