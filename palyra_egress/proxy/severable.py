"""A connection that can be severed: mitmproxy's handler with an end that waits for nothing.

Severing has four steps, which a sweep takes for all of its connections one after the other:
nothing more leaves towards servers, the worker's side is reset, the loop hears of neither, and what
still runs is unwound. A reset is one call of the kernel, a few microseconds; the loop needs as long
again for the socket, and unwinding a connection's tasks and layers takes milliseconds. So nothing
of either may stand before the next reset: tasks are not even woken by the end of their sockets, but
in their turn.
"""

import asyncio

from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import mode_specs
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

from palyra_egress.proxy.bounds.sources import source_of
from palyra_egress.proxy.sockets.resets import cut_off, keep_quiet, reset, reset_quietly
from palyra_egress.reasons import Reason


class SeverableHandler(ProxyConnectionHandler):
    """`_aborted` is why it was severed; `_passed_on` leads to the server of a tunnel that is passed
    on."""

    def __init__(
        self,
        master: Master,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        options: Options,
        mode: mode_specs.ProxyMode,
    ) -> None:
        super().__init__(master, reader, writer, options, mode)  # type: ignore[no-untyped-call]
        self._aborted: Reason | None = None
        self._passed_on: asyncio.StreamWriter | None = None
        self._worker = writer
        self._is_unwound = False
        self._cut: list[asyncio.StreamWriter] = []
        self._not_told: list[asyncio.BaseProtocol] = []

    @property
    def source(self) -> str:
        """Where it comes from, as strangers are counted."""
        return source_of(self.client.peername)

    @property
    def severed_for(self) -> Reason | None:
        """Why it was severed, if it was."""
        return self._aborted

    def abort(self, reason: Reason) -> None:
        """Reset both sides now: what is in a buffer stays there."""
        if self._aborted is None:
            self.stop_sending(reason)
            self.hang_up()
            self.keep_quiet()
            asyncio.get_running_loop().call_soon(self.unwind)

    def stop_sending(self, reason: Reason) -> None:
        """Reset every server; what is read from now on goes nowhere."""
        if self._aborted is not None:
            return
        self._aborted = reason
        for writer in self._server_writers():
            self._cut_off(writer)

    def hang_up(self) -> None:
        """Reset the worker's side."""
        self._cut_off(self._worker)

    def keep_quiet(self) -> None:
        """Let the ends of what was reset wake nobody."""
        for writer in self._cut:
            if not keep_quiet(writer):
                self._reset_quietly(writer)
        self._cut.clear()

    def unwind(self) -> None:
        """Close what was reset and whatever was opened in between, and end what still runs. Done
        once."""
        if self._is_unwound:
            return
        self._is_unwound = True
        for writer in self._writers():
            if not writer.is_closing():
                self._reset_quietly(writer)
        for protocol in self._not_told:
            protocol.connection_lost(None)
        for io in list(self.transports.values()):
            if io.handler is not None:
                io.handler.cancel("aborted")

    def reset_upstreams(self) -> None:
        """Reset every server behind this connection; the worker's side stays."""
        for writer in self._server_writers():
            reset(writer)

    def _cut_off(self, writer: asyncio.StreamWriter) -> None:
        if cut_off(writer):
            self._cut.append(writer)
        else:
            self._reset_quietly(writer)

    def _reset_quietly(self, writer: asyncio.StreamWriter) -> None:
        if (protocol := reset_quietly(writer)) is not None:
            self._not_told.append(protocol)

    def _writers(self) -> list[asyncio.StreamWriter]:
        return [*self._server_writers(), self._worker]

    def _server_writers(self) -> list[asyncio.StreamWriter]:
        held = [io.writer for side, io in self.transports.items() if side is not self.client]
        return [w for w in (self._passed_on, *held) if isinstance(w, asyncio.StreamWriter)]
