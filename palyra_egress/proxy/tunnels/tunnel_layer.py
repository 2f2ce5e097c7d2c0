"""The layer in which a tunnel that is passed on begins: it collects the ClientHello, and no more.

It is bounded like the hello of an inspected tunnel, and asks at the same hook whether the tunnel
may go on. What follows the accepted hello is carried by `relaying`, outside mitmproxy's layers: the
handler takes over as soon as the guard says that the hello is complete.
"""

from typing import Any

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.tls import TlsClienthelloHook, parse_client_hello
from mitmproxy.tls import ClientHelloData

from palyra_egress.proxy.guard.guard_parts import TunnelKeeper
from palyra_egress.proxy.http.layers import is_endless_hello
from palyra_egress.reasons import Reason

type Commands = layer.CommandGenerator[Any]


class PassedOnLayer(layer.Layer):
    """Reads one ClientHello and hands it over; ignores whatever comes afterwards."""

    def __init__(self, context: Context, guard: TunnelKeeper) -> None:
        super().__init__(context)
        self._guard = guard
        self._hello = b""
        self._is_over = False

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.ConnectionClosed):
            self._is_over = True
            yield commands.CloseConnection(self.context.client)
        elif isinstance(event, events.DataReceived) and not self._is_over:
            self._hello += event.data
            yield from self._read()

    def _read(self) -> Commands:
        try:
            hello = parse_client_hello(self._hello)
        except ValueError:
            self._refuse()
            return
        if hello is not None:
            self._is_over = True
            yield TlsClienthelloHook(ClientHelloData(self.context, hello))
            self._guard.pass_on(self._hello)
        elif is_endless_hello(self._hello):
            self._refuse()

    def _refuse(self) -> None:
        self._is_over = True
        self._guard.refuse_tunnel(Reason.NON_HTTP_IN_TUNNEL)
