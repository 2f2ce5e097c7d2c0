"""Carries the bytes of one tunnel that is passed on, both ways, until it ends.

Each direction is read only as fast as the other side takes it, so memory stays bounded whatever the
peers do; an end of one direction is passed on as such, and the other goes on for a while. What a
`Relay` does not let pass, silence, and too long a life end the tunnel through `stop`, which resets
both sides.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.tunnels.relay import Relay
from palyra_egress.reasons import Reason

CHUNK_BYTES = 1 << 16
COMPLETE = "complete"
ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Side:
    """One side's stream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class TunnelCarrier:
    """One tunnel. `stop` is told why it must not go on."""

    def __init__(
        self,
        worker: Side,
        server: Side,
        relay: Relay,
        deadlines: Deadlines,
        stop: Callable[[Reason], None],
    ) -> None:
        self._worker = worker
        self._server = server
        self._relay = relay
        self._deadlines = deadlines
        self._stop = stop
        self._was_active = False
        self._is_half_open = False
        self._answered = asyncio.Event()
        self._outcome = COMPLETE
        self._silence: asyncio.TimerHandle | None = None

    async def run(self) -> str:
        """Carry everything, the ClientHello first; how it ended."""
        loop = asyncio.get_running_loop()
        life = loop.call_later(self._deadlines.tunnel_s, self._stop, Reason.DEADLINE)
        self._listen_for_silence()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outward(self._relay.hello))
                group.create_task(self._inward())
        finally:
            life.cancel()
            if self._silence is not None:
                self._silence.cancel()
        return self._outcome

    async def _outward(self, data: bytes) -> None:
        """From the worker to the server; `data` was read already."""
        try:
            while data:
                self._was_active = True
                if not await self._write_on(self._relay.send(data)):
                    return
                if self._relay.gate.is_full:
                    await self._answered.wait()
                data = await self._worker.reader.read(CHUNK_BYTES)
            if self._relay.gate.holds:
                await self._answered.wait()
            self._end(self._server.writer)
        except OSError:
            self._break()

    async def _inward(self) -> None:
        """From the server to the worker."""
        try:
            while data := await self._server.reader.read(CHUNK_BYTES):
                self._was_active = True
                passed = self._relay.receive(data)
                if isinstance(passed, Reason):
                    self._stop(passed)
                    return
                if not await self._write_on(self._relay.gate.let_go()):
                    return
                if passed:
                    self._answered.set()
                self._worker.writer.write(passed)
                await self._worker.writer.drain()
            self._answered.set()
            self._end(self._worker.writer)
        except OSError:
            self._break()

    async def _write_on(self, passed: bytes | Reason) -> bool:
        """Send the server what may leave; False where the tunnel is over instead."""
        if isinstance(passed, Reason):
            self._stop(passed)
            return False
        if passed:
            self._server.writer.write(passed)
            await self._server.writer.drain()
        return True

    def _end(self, writer: asyncio.StreamWriter) -> None:
        """Pass the end of one direction on; the other has a shorter patience from now on. A worker
        inside TLS of ours knows no half of a connection: its end is the whole end."""
        self._is_half_open = True
        self._listen_for_silence()
        if not writer.can_write_eof():
            writer.close()
            return
        with contextlib.suppress(OSError):  # closed already
            writer.write_eof()

    def _break(self) -> None:
        """One side was reset: so is the other."""
        self._outcome = ABORTED
        self._worker.writer.transport.abort()
        self._server.writer.transport.abort()

    def _listen_for_silence(self) -> None:
        """Look again after the time that may pass without a byte."""
        if self._silence is not None:
            self._silence.cancel()
        deadlines = self._deadlines
        patience_s = deadlines.half_open_s if self._is_half_open else deadlines.idle_s
        self._was_active = False
        loop = asyncio.get_running_loop()
        self._silence = loop.call_later(patience_s, self._look_for_silence)

    def _look_for_silence(self) -> None:
        if self._was_active:
            self._listen_for_silence()
        else:
            self._stop(Reason.DEADLINE)
