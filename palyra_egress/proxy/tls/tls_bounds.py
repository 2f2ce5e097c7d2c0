"""TLS with either side, and a bound on what is sent in it that carries nothing.

A record costs who reads it time, whatever it holds; a key update (RFC 8446 section 4.6.3) costs the
most, and comes out as nothing that anybody counts. So each side may send so many bytes of records,
and so many more for every byte that came out of them. Sizes in bytes.
"""

from typing import Any, Final

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer
from mitmproxy.proxy.layers.tls import TLSLayer

from palyra_egress.proxy.guard.http_guard import FloodKeeper
from palyra_egress.proxy.http.h2_connection import Commands
from palyra_egress.proxy.http.layers import is_endless_hello

FREE_BYTES: Final = 256 * 1024
BYTES_FOR_A_BYTE: Final = 128  # the smallest record of any cipher that is spoken has fewer


class BoundedTls(TLSLayer):
    """What both sides add to mitmproxy's. `guard` is told of a flood."""

    guard: FloodKeeper
    _received = 0
    _carried = 0

    def receive_handshake_data(self, data: bytes) -> Any:
        if self._is_too_much(data):
            return False, None
        return (yield from super().receive_handshake_data(data))

    def receive_data(self, data: bytes) -> Commands:
        if not self._is_too_much(data):
            yield from super().receive_data(data)

    def _is_too_much(self, data: bytes) -> bool:
        """Count these; the connection is over where they are too many."""
        self._received += len(data)
        if self._received <= FREE_BYTES + BYTES_FOR_A_BYTE * self._carried:
            return False
        self.guard.flooded(by_worker=self.conn == self.context.client)
        return True

    def tls_interact(self) -> Commands:
        """Behind the end of our side nothing is said any more, not even what is wrong."""
        for command in super().tls_interact():
            if self.conn.state & ConnectionState.CAN_WRITE:
                yield command

    def event_to_child(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived) and event.connection == self.conn:
            self._carried += len(event.data)
        return super().event_to_child(event)


class BoundedServerTls(BoundedTls, ServerTLSLayer):
    """Towards a server."""

    def __init__(self, context: Context, guard: FloodKeeper) -> None:
        super().__init__(context)
        self.guard = guard


class BoundedClientTls(BoundedTls, ClientTLSLayer):
    """Towards the worker; a ClientHello in endless small records is given up on, because each new
    byte makes mitmproxy read all of them again."""

    def __init__(self, context: Context, guard: FloodKeeper) -> None:
        super().__init__(context)
        self.guard = guard

    def receive_handshake_data(self, data: bytes) -> Any:
        if not self.client_hello_parsed and is_endless_hello(bytes(self.recv_buffer) + data):
            return False, "the ClientHello does not end"
        return (yield from super().receive_handshake_data(data))
