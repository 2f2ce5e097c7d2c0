"""The one place that reads a clock. Everything else takes `now_unix_ms` as an argument.

The time given is the wall clock's, but it never runs slower than real time does: after a step back
it goes on from where it was, at the pace of the time since boot, until the wall clock has caught
up. So a clock that is set back lengthens no lease and revives nothing; a step forward is followed
at once, which only ends things earlier. A `ClockMark` that was made durable carries this over a
restart of the process: within one boot of the machine the time since boot says exactly how long it
was away. Source: `clock_gettime(2)`, CLOCK_BOOTTIME (goes on during suspend, is never set);
`random(4)`, boot_id.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ClockMark:
    """One moment on two clocks: milliseconds since that boot, and the fleet's Unix time then.

    An empty `boot_id` is no boot that could be told apart, and never the same as another.
    """

    boot_id: str
    since_boot_ms: int
    unix_ms: int


def now_unix_ns() -> int:
    """The wall clock in Unix nanoseconds: for spans, which decide nothing."""
    return time.time_ns()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _since_boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _boot_id() -> str:
    try:
        return _BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class ForwardClock:
    """Unix milliseconds that grow at least as fast as the time since boot."""

    def __init__(
        self,
        wall_ms: Callable[[], int] = _wall_ms,
        since_boot_ms: Callable[[], int] = _since_boot_ms,
        boot_id: str | None = None,
    ) -> None:
        self._wall_ms = wall_ms
        self._since_boot_ms = since_boot_ms
        self._boot_id = _boot_id() if boot_id is None else boot_id
        self._anchor = (wall_ms(), since_boot_ms())

    def __call__(self) -> int:
        return self.now_unix_ms()

    def now_unix_ms(self) -> int:
        """The wall clock's time, or the time it should have by now if that is later."""
        return self.mark().unix_ms

    def mark(self) -> ClockMark:
        """Now, as something that may be kept for `resume`."""
        wall, since_boot = self._wall_ms(), self._since_boot_ms()
        expected = self._expected(since_boot)
        if wall < expected:
            return ClockMark(self._boot_id, since_boot, expected)
        self._anchor = (wall, since_boot)
        return ClockMark(self._boot_id, since_boot, wall)

    def behind_ms(self) -> int:
        """By how much the wall clock is behind the time given; 0 is good."""
        return max(0, self._expected(self._since_boot_ms()) - self._wall_ms())

    def resume(self, mark: ClockMark | None, high_water_unix_ms: int) -> bool:
        """Go on from a durable mark, never below `high_water_unix_ms`.

        False: the wall clock is behind what was seen before, and in another boot nobody can tell
        for how long the fleet was away. What a time bounds must end then.
        """
        wall, since_boot = self._wall_ms(), self._since_boot_ms()
        known = mark is not None and _same_boot(mark, self._boot_id, since_boot)
        least = high_water_unix_ms
        if known and mark is not None:
            least = max(least, mark.unix_ms + since_boot - mark.since_boot_ms)
        if self._expected(since_boot) < least:
            self._anchor = (least, since_boot)
        return known or wall >= high_water_unix_ms

    def _expected(self, since_boot_ms: int) -> int:
        unix, since_boot = self._anchor
        return unix + since_boot_ms - since_boot


def _same_boot(mark: ClockMark, boot_id: str, since_boot_ms: int) -> bool:
    return bool(boot_id) and mark.boot_id == boot_id and since_boot_ms >= mark.since_boot_ms


def timekeeper(clock: Callable[[], int]) -> ForwardClock:
    """`clock` itself if it can be resumed; else one on it, to which every start is a new boot."""
    return clock if isinstance(clock, ForwardClock) else ForwardClock(clock, clock, boot_id="")


process_clock = ForwardClock()
"""The clock of this process: `now_unix_ms`, and what a fleet resumes."""


def now_unix_ms() -> int:
    """Unix milliseconds, never slower than real time; see the module."""
    return process_clock.now_unix_ms()
