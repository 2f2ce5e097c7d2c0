"""Time that only a test moves: hours of a run pass as fast as its requests are answered.

`play` goes from moment to moment. Before each it waits until `loops` tasks sleep here, so whatever
the last moment set off (requests to a real fleet, a thread that measures) is done when the next one
comes. Nothing waits for real time, so a slow machine changes nothing; only a task that never goes
to sleep again runs into a real time-out.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

START_UNIX_MS = 1_800_000_000_000
STUCK_AFTER_S = 60.0


@dataclass(slots=True, order=True)
class ManualAlarm:
    when_s: float
    number: int
    act: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class ManualTime:
    """A Timekeeper. `asleep` is how many tasks wait for a moment."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._alarms: list[ManualAlarm] = []
        self._numbers = itertools.count()
        self._sleepers: set[asyncio.Future[None]] = set()
        self._news: asyncio.Future[None] | None = None

    def wall_unix_ms(self) -> int:
        return START_UNIX_MS + round(self._now_s * 1000)

    def now_s(self) -> float:
        return self._now_s

    def call_at(self, when_s: float, act: Callable[[], None]) -> ManualAlarm:
        alarm = ManualAlarm(when_s, next(self._numbers), act)
        heapq.heappush(self._alarms, alarm)
        return alarm

    async def sleep(self, seconds: float) -> None:
        sleeper = asyncio.get_running_loop().create_future()

        def wake() -> None:
            self._sleepers.discard(sleeper)
            if not sleeper.done():
                sleeper.set_result(None)

        alarm = self.call_at(self._now_s + seconds, wake)
        self._sleepers.add(sleeper)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        try:
            await sleeper
        finally:
            alarm.cancel()
            self._sleepers.discard(sleeper)

    async def play(self, until_s: float, loops: int, ended: asyncio.Future[Any]) -> None:
        """Let every moment up to `until_s` come, in order; stop early when `ended` is done."""
        while True:
            await self._until_asleep(loops, ended)
            while self._alarms and self._alarms[0].cancelled:
                heapq.heappop(self._alarms)
            if ended.done():
                return
            if not self._alarms or self._alarms[0].when_s > until_s:
                self._now_s = max(self._now_s, until_s)
                return
            alarm = heapq.heappop(self._alarms)
            self._now_s = max(self._now_s, alarm.when_s)
            alarm.act()

    async def _until_asleep(self, loops: int, ended: asyncio.Future[Any]) -> None:
        async with asyncio.timeout(STUCK_AFTER_S):
            while len(self._sleepers) < loops and not ended.done():
                self._news = asyncio.get_running_loop().create_future()
                await asyncio.wait({self._news, ended}, return_when=asyncio.FIRST_COMPLETED)
