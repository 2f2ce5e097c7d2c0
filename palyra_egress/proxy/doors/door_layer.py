"""The layer in front of a connection that says by itself where it goes, before any HTTP.

A `DoorLayer` finds out the target in its own way, asks the guard for a tunnel there, and steps out
of the way: what follows is looked at as in a tunnel of CONNECT. Until then nothing is dialled, and
what the client sends meanwhile waits here, a few kilobytes at most: nothing is read of it while the
guard decides.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from palyra_egress.proxy.guard.guard_parts import AskedTunnel, DoorKeeper

type Commands = layer.CommandGenerator[Any]


@dataclass
class TunnelAskedHook(commands.StartHook):  # type: ignore[no-untyped-call]
    """Where a client wants to go, told without HTTP."""

    asked: AskedTunnel


class DoorLayer(layer.Layer):
    """Collects what the client sends until its target is known. Subclasses read it."""

    def __init__(self, context: Context, guard: DoorKeeper) -> None:
        super().__init__(context)
        self._guard = guard
        self._data = b""
        self._is_over = False

    @abstractmethod
    def _read(self) -> Commands:
        """Take what can be taken of `_data`; end in `_enter` or `_refuse`."""
        yield from ()

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            self._guard.expect_target()
        elif isinstance(event, events.ConnectionClosed):
            self._is_over = True
            yield commands.CloseConnection(self.context.client)
        elif isinstance(event, events.DataReceived) and not self._is_over:
            self._data += event.data
            yield from self._read()

    def _enter(self, asked: AskedTunnel) -> Commands:
        """The tunnel is open: the rest is for whatever is spoken inside."""
        self.context.server.address = (asked.host, asked.port)
        child = layer.NextLayer(self.context)
        self._handle_event = child.handle_event  # type: ignore[method-assign]
        yield from child.handle_event(events.Start())
        if self._data:
            rest, self._data = self._data, b""
            yield from child.handle_event(events.DataReceived(self.context.client, rest))

    def _refuse(self, answer: bytes) -> Commands:
        """Say the last word and hang up."""
        self._is_over = True
        self._data = b""
        if answer:
            yield commands.SendData(self.context.client, answer)
        yield commands.CloseConnection(self.context.client)
