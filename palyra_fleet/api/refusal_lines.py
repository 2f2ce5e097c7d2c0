"""Which refused calls have a line of the log each, and how many had none. Pure.

The first of a reason from an address are told one by one, the others of that minute as a number, so
that nobody fills the log, and no storm of one reason hides another one. What all of them may write
in a minute is bounded as well, and so is how many are remembered: beyond both, calls are counted as
of no address. Nothing is left out that is not counted. Times: any monotonic clock, in seconds.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

WINDOW_S: Final = 60.0
LINES_EACH: Final = 30
"""Of one reason from one address in a window."""
LINES_IN_ALL: Final = 600
MAX_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class LeftOut:
    """So many calls of one reason had no line of their own. `address` None: of several."""

    address: str | None
    reason: str | None
    calls: int


@dataclass(slots=True)
class _Window:
    began_s: float
    told: int = 0
    left_out: int = 0


type _Key = tuple[str | None, str | None]
_OTHERS: Final[_Key] = (None, None)


@dataclass(slots=True)
class RefusalLines:
    """Windows by address and reason, the oldest first; all of them last equally long."""

    _in_all: _Window = field(default_factory=lambda: _Window(float("-inf")))
    _windows: OrderedDict[_Key, _Window] = field(default_factory=OrderedDict)

    def note(self, address: str, reason: str, now_s: float) -> bool:
        """Whether this one has a line. Ask `over` before: what a window left out is told then."""
        if now_s - self._in_all.began_s >= WINDOW_S:
            self._in_all = _Window(now_s)
        window = self._window((address, reason), now_s)
        if window is None or window.told >= LINES_EACH or self._in_all.told >= LINES_IN_ALL:
            self._count(window, now_s)
            return False
        window.told += 1
        self._in_all.told += 1
        return True

    def over(self, now_s: float) -> tuple[LeftOut, ...]:
        """What was left out in windows that are over; each is told once."""
        found = []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now_s - window.began_s < WINDOW_S:
                break
            del self._windows[key]
            if window.left_out:
                found.append(LeftOut(*key, window.left_out))
        return tuple(found)

    def next_end_s(self) -> float | None:
        """When the oldest window ends; None where there is none."""
        return None if not self._windows else next(iter(self._windows.values())).began_s + WINDOW_S

    def _window(self, key: _Key, now_s: float) -> _Window | None:
        known = self._windows.get(key)
        if known is None and len(self._windows) < MAX_REMEMBERED:
            known = self._windows[key] = _Window(now_s)
        return known

    def _count(self, window: _Window | None, now_s: float) -> None:
        if window is None:
            window = self._windows.get(_OTHERS)
        if window is None:
            window = self._windows[_OTHERS] = _Window(now_s)
        window.left_out += 1
