"""Ends connections that carry nothing, whatever is sent on them.

mitmproxy's watchdog is calmed by any byte, so that a connection on which somebody drips (half a
record of TLS, empty lines, pings) would keep its place for ever. Here only what is carried counts.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy.proxy.server import TimeoutWatchdog


class Idleness(TimeoutWatchdog):
    """In the place of mitmproxy's watchdog. `idle_for_s` says for how long a connection has carried
    nothing, 0 while it does; after `patience_s` of that, `end` is called, once."""

    def __init__(
        self,
        patience_s: float,
        idle_for_s: Callable[[], float],
        end: Callable[[], Awaitable[Any]],
    ) -> None:
        super().__init__(0, end)
        self._patience_s = patience_s
        self._idle_for_s = idle_for_s

    async def watch(self) -> None:
        """Watch until the connection has ended."""
        try:
            while True:
                left_s = self._patience_s - self._idle_for_s()
                if left_s <= 0:
                    break
                await asyncio.sleep(left_s)
            await self.callback()
        except asyncio.CancelledError:
            return
