"""Ends connections that carry nothing, whatever is sent on them.

mitmproxy's watchdog is calmed by any byte, so that a connection on which somebody drips (half a
record of TLS, empty lines, pings) would keep its place for ever. Here only what is carried counts,
and the time in which a decision is pending is ours: it is nobody's silence, however short the
patience is set.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mitmproxy.proxy.server import TimeoutWatchdog


@dataclass(slots=True)
class IdleClock:
    """For how long a connection has carried nothing, in milliseconds of `now_ms`."""

    now_ms: Callable[[], int]
    _since_ms: int = field(init=False)
    _pending: int = 0
    _pending_since_ms: int = 0

    def __post_init__(self) -> None:
        self._since_ms = self.now_ms()

    def begin_again(self) -> None:
        """Something was carried just now."""
        self._since_ms = self._pending_since_ms = self.now_ms()

    def decision_begins(self) -> None:
        """Time stands still until every decision that has begun is over."""
        if not self._pending:
            self._pending_since_ms = self.now_ms()
        self._pending += 1

    def decision_ends(self) -> None:
        self._pending -= 1
        if not self._pending:
            self._since_ms += self.now_ms() - self._pending_since_ms

    @property
    def idle_ms(self) -> int:
        """0 while a decision is pending."""
        return 0 if self._pending else self.now_ms() - self._since_ms


class Idleness(TimeoutWatchdog):
    """In the place of mitmproxy's watchdog. `idle_for_s` says for how long a connection has carried
    nothing, 0 while it does. After `patience_s` of that the other side is told, by `farewell`,
    which says how many seconds that may take, 0 where there is nothing to tell. If the connection
    is still there, and idle, `end` is called, once."""

    def __init__(
        self,
        patience_s: float,
        idle_for_s: Callable[[], float],
        farewell: Callable[[], float],
        end: Callable[[], Awaitable[Any]],
    ) -> None:
        super().__init__(0, end)
        self._patience_s = patience_s
        self._idle_for_s = idle_for_s
        self._farewell = farewell

    async def watch(self) -> None:
        """Watch until the connection has ended."""
        try:
            is_told = False
            while True:
                wait_s = self._patience_s - self._idle_for_s()
                if wait_s > 0:
                    is_told = False
                elif is_told or not (wait_s := self._farewell()):
                    break
                else:
                    is_told = True
                await asyncio.sleep(wait_s)
            await self.callback()
        except asyncio.CancelledError:
            return
