"""The worker's seam to time: the wall clock, a clock that only goes forward, waiting and alarms.

Everything in the worker runtime that waits for a moment goes through here, so that hours of a run
can be played in a test without waiting. Time-outs of single requests stay with the HTTP client.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from palyra_fleet.clock import now_unix_ms


class Alarm(Protocol):
    """Something that will happen once, unless it is cancelled."""

    def cancel(self) -> None: ...


class Timekeeper(Protocol):
    """`now_s` is monotonic seconds; `wall_unix_ms` is compared to the fleet's times only."""

    def wall_unix_ms(self) -> int: ...

    def now_s(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...

    def call_at(self, when_s: float, act: Callable[[], None]) -> Alarm: ...


class LoopTime:
    """The real thing: the loop's clock and the wall clock."""

    def wall_unix_ms(self) -> int:
        return now_unix_ms()

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_at(self, when_s: float, act: Callable[[], None]) -> Alarm:
        return asyncio.get_running_loop().call_at(when_s, act)
