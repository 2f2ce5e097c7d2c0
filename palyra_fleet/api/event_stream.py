"""Server-sent events over one answer, and the event log followed for one reader.

`EventStream` writes; a reader that does not read is cut. `LogReader` reads the store from where the
reader is whenever the log has gone on: nothing is queued for anybody, so a slow reader costs only
itself. Who may read is asked before each batch, and every second. Both serve the admin API and the
console. Source: HTML Living Standard, "Server-sent events".
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.wire.models import EventView

EVENT_STREAM: Final = "text/event-stream"
STREAMING: Final = web.RequestKey("palyra-streaming", bool)
"""Set once an answer has begun that goes on: it can only break off."""
MOST_AT_ONCE: Final = 200
LOOK_EVERY_S: Final = 1.0
"""How often a reader who waits is looked at: whether it is there, and may still read."""


class ReaderGone(ConnectionResetError):
    """The reader went away, or did not read in time and was cut."""


def is_there(request: web.Request) -> bool:
    """Whether who asked is still connected."""
    transport = request.transport
    return transport is not None and not transport.is_closing()


def abort(request: web.Request) -> None:
    """Cut the connection, without the end of the answer."""
    transport = request.transport
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


class EventStream:
    """One answer of server-sent events. `begin` before the first `write`."""

    def __init__(self, request: web.Request, write_within_s: float) -> None:
        self._request = request
        self._within_s = write_within_s
        self.response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM})

    async def begin(self) -> None:
        self._request[STREAMING] = True
        await self.response.prepare(self._request)

    async def write(self, text: str) -> None:
        """Raises ReaderGone, the connection cut, if the reader does not take it in time."""
        try:
            async with asyncio.timeout(self._within_s):
                await self.response.write(text.encode())
        except TimeoutError:
            abort(self._request)
            raise ReaderGone("the reader does not read") from None


@dataclass(slots=True)
class LogReader:
    """Follows the log from entry `seen` on. `may_read`: whether who reads still may."""

    service: FleetService
    request: web.Request
    may_read: Callable[[], bool]
    seen: int

    @property
    def goes_on(self) -> bool:
        return is_there(self.request) and self.may_read()

    async def news(self, within_s: float) -> tuple[EventView, ...] | None:
        """The next entries, none when nothing came in time; None when it is over. Raises a
        refusal where the store cannot be read."""
        await self.service.log_goes_beyond(self.seen, within_s)
        found: tuple[EventView, ...] = ()
        if self.service.last_event_seq > self.seen:
            found = await self.service.events(self.seen, MOST_AT_ONCE)
        if not self.goes_on:
            return None
        if found:
            self.seen = found[-1].seq
        return found
