"""A proxy whose time runs as fast as a test wants: minutes pass between two bytes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from palyra_egress.proxy.clocks import Clocks
from tests.fakes.proxy_harness import Harness
from tests.fakes.until import until


@dataclass
class Hurry:
    """`harness`' monotonic time, which stands still but where it is told to go on, so that a slow
    machine changes nothing."""

    harness: Harness
    ahead_ms: int = 0

    def __post_init__(self) -> None:
        core = self.harness.core
        real = core.clocks
        stopped_ms = real.now_monotonic_ms()
        core.clocks = Clocks(real.now_unix_ms, lambda: stopped_ms + self.ahead_ms)

    def pass_s(self, seconds: float) -> None:
        self.ahead_ms += round(seconds * 1000)

    async def drip(
        self, send: Callable[[], None], ended: asyncio.Future[Any], every_s: float = 10
    ) -> None:
        """Send one drop every so many seconds until the proxy has ended it."""

        def drop() -> bool:
            if not ended.done():
                send()
                self.pass_s(every_s)
            return ended.done()

        await until("the proxy ends what drips", drop)

    async def steps(self, count: int, every_s: float, one: Callable[[], Awaitable[Any]]) -> None:
        """So many drops, each of which must have arrived before the next is sent."""
        for _ in range(count):
            self.pass_s(every_s)
            await one()

    def outcomes(self) -> list[str]:
        return [one["outcome"] for one in self.harness.audit() if one["kind"] == "transfer"]

    def reasons(self) -> list[str]:
        """Why something was refused."""
        return [one["reason"] for one in self.harness.verdicts() if one["effect"] != "allow"]
