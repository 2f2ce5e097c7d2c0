"""A connection that is read from only as fast as what was read goes on, and in its worker's share.

Whatever one side sends waits for the other to take it, for decisions that are pending, and for the
worker's share of the loop; so nothing piles up in memory, and nobody is served at the others' cost.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from mitmproxy.connection import Connection
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, mode_specs

from palyra_egress.proxy.bounds.wakeups import AfterLastByte, AwaitRoom, AwaitWord
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.http.pieces import in_pieces
from palyra_egress.proxy.severable import SeverableHandler

UPSTREAM_READY_DEADLINE_S: Final = 30.0


class PacedHandler(SeverableHandler):
    """`_running_hooks` are the decisions that are pending, `_progress` is set with whatever the
    worker's bytes may have waited for, `_word` when the guard has something to say to its layer."""

    guard: ConnectionGuard

    def __init__(
        self,
        master: Master,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        options: Options,
        mode: mode_specs.ProxyMode,
    ) -> None:
        super().__init__(master, reader, writer, options, mode)
        self._running_hooks = 0
        self._progress = asyncio.Event()
        self._word = asyncio.Event()

    # --- back-pressure --------------------------------------------------------------------------

    def progressed(self) -> None:
        """Something that the worker's bytes may have waited for has happened."""
        self._progress.set()

    def _is_pending(self) -> bool:
        """Whether what an HTTP/1 worker sends now would have to wait. In HTTP/2 every stream has a
        window, which is not opened again meanwhile."""
        if self._aborted is not None or self.guard.is_multiplexed:
            return False
        return self._running_hooks > 0 or self.guard.awaits_upstream

    async def drain_writers(self) -> None:
        """Called between two reads of either side, which then waits for the other one to take what
        it was sent: an HTTP/2 worker, whose streams have windows, only for itself to read answers,
        a server never for itself, since it may not read before it was read from. An HTTP/1 worker
        is not read from while a decision is pending or its upstream is not ready either: mitmproxy
        would keep all it sends in memory."""
        if not self._reads_worker():
            await self._drain([self.client])
            await self._wait_while(self._is_backed_up)
            return
        sides = [self.client] if self.guard.is_multiplexed else list(self.transports)
        await self._drain(sides)
        await self._wait_while(self._is_backed_up)
        try:
            async with asyncio.timeout(UPSTREAM_READY_DEADLINE_S):
                await self._wait_while(self._is_pending)
        except TimeoutError:
            self.guard.upstream_overdue()

    def _reads_worker(self) -> bool:
        """Whether this task is the one that reads the worker."""
        client = self.transports.get(self.client)
        return client is not None and client.handler is asyncio.current_task()

    async def _take_data(self, event: events.DataReceived) -> None:
        """Hand on what was read, as far as the worker's share of this pass of the loop goes."""
        if self.guard.takes_pieces(event.connection):
            await in_pieces(event, self._handle_data, self._has_share)
        elif await self._has_share(len(event.data)):
            await self._handle_data(event)
        self._progress.set()

    async def _handle_data(self, event: events.DataReceived) -> None:
        began_s = time.thread_time()
        await super().server_event(event)
        self._charge(time.thread_time() - began_s)

    def _charge(self, took_s: float) -> None:
        """What was done for this connection is done at its worker's cost: what was read of either
        side, and decisions with what the layers made of them."""
        self.guard.core.shares.charge(self._shares_as, took_s)

    @property
    def _shares_as(self) -> str:
        """Who has the share; those that have not shown whose they are share by source."""
        who = self.guard.requester
        return who.worker_id if who is not None else f"stranger {self.source}"

    async def _has_share(self, cost_bytes: int) -> bool:
        """Wait for the worker's share. False once the connection was aborted, or this task was
        ended meanwhile: it hears of that at its next wait, where it can end in order."""
        if self._aborted is not None:
            return False
        try:
            await self.guard.core.shares.take(self._shares_as, cost_bytes)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.cancel("ended while it waited for its share")
            return False
        return self._aborted is None

    async def _wait_while(self, waits: Callable[[], bool]) -> None:
        while waits():
            self._progress.clear()
            await self._progress.wait()

    def _is_backed_up(self) -> bool:
        """Whether the other side's windows have no room for what the side of this task sends."""
        task = asyncio.current_task()
        return self._aborted is None and any(
            self.guard.is_backed_up(side)
            for side, io in self.transports.items()
            if io.handler is task
        )

    async def _drain(self, sides: Sequence[Connection]) -> None:
        """Wait until these sides took what was written to them; a server is read to its end."""
        for side in sides:
            io = self.transports.get(side)
            if io is None or io.writer is None:
                continue
            try:
                await io.writer.drain()
            except OSError as error:
                if side is self.client and io.handler is not None:
                    io.handler.cancel(f"Error sending data: {error}")

    async def wakeup(self, request: commands.RequestWakeup) -> None:
        """Wake a layer: after a while, when one side has room again, or when its guard has a word
        for it."""
        match request:
            case AwaitRoom():
                await self._drain([request.connection])
            case AwaitWord():
                await self._word.wait()
                self._word.clear()
            case AfterLastByte():
                self._end_side(request.connection)
                await super().wakeup(request)
                return
            case _:
                await super().wakeup(request)
                return
        self.wakeup_timer -= {asyncio.current_task()}
        await self.server_event(events.Wakeup(request))

    def _end_side(self, connection: Connection) -> None:
        """Our side of a connection ends; TLS of a listener knows no half of one."""
        io = self.transports.get(connection)
        writer = io.writer if io is not None else None
        if isinstance(writer, asyncio.StreamWriter) and writer.can_write_eof():
            self.close_connection(connection, half_close=True)
