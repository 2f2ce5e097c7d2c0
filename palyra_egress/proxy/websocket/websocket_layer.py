"""The layer that carries an open WebSocket: bytes of either side to the guard, its answer onwards.

mitmproxy's own layer is not used: it answers pings past every hook, reassembles whole messages in
memory, and cannot be refused. Here every byte of either side is metered, read as frames and written
anew before it goes on.
"""

from typing import Any, Protocol

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

type Commands = layer.CommandGenerator[Any]


class SocketCarrier(Protocol):
    """What the layer needs of the guard. `stream_id` names the exchange that was upgraded."""

    def socket_opens(self, stream_id: int) -> bool:
        """Whether the exchange has an accepted 101; if so, it is being carried from now on."""
        ...

    def socket_data(self, stream_id: int, data: bytes, *, from_worker: bool) -> bytes:
        """What goes on of these bytes."""
        ...

    def socket_ends(self, stream_id: int, *, from_worker: bool) -> None:
        """One side has hung up."""
        ...

    def socket_is_over(self, stream_id: int) -> bool: ...


class WebSocketLayer(layer.Layer):
    """One open WebSocket."""

    def __init__(self, context: Context, stream_id: int, guard: SocketCarrier) -> None:
        super().__init__(context)
        self._stream_id = stream_id
        self._guard = guard
        self._is_over = False

    def _handle_event(self, event: events.Event) -> Commands:
        if self._is_over or not isinstance(event, events.ConnectionEvent):
            return
        from_worker = event.connection == self.context.client
        other = self.context.server if from_worker else self.context.client
        if isinstance(event, events.DataReceived):
            out = self._guard.socket_data(self._stream_id, event.data, from_worker=from_worker)
            if out:
                yield commands.SendData(other, out)
        elif isinstance(event, events.ConnectionClosed):
            self._guard.socket_ends(self._stream_id, from_worker=from_worker)
        if self._guard.socket_is_over(self._stream_id):
            self._is_over = True
            yield commands.CloseConnection(self.context.server)
            yield commands.CloseConnection(self.context.client)
