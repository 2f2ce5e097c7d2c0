"""One exchange of a worker's connection: mitmproxy's stream, which ends as the guard says.

A request's body goes on while it is granted, and no further: not behind a server's answer that came
before its end, and not once the stream is over for its worker. A 101 that was accepted makes it a
WebSocket.
"""

from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestTrailers,
    ResponseEndOfMessage,
    ResponseProtocolError,
)

from palyra_egress.proxy.guard.http_guard import HttpGuard
from palyra_egress.proxy.http.h2_connection import Commands
from palyra_egress.proxy.websocket.websocket_layer import WebSocketLayer


class JudgedStream(HttpStream):
    """One exchange. A server may answer before the request is complete: the worker gets the whole
    answer then, and its request ends. Trailers are looked at when their turn comes, which is not
    before the request was granted."""

    def __init__(self, context: Context, stream_id: int, guard: HttpGuard) -> None:
        super().__init__(context, stream_id)
        self._guard = guard
        self.is_over = False

    def handle_event(self, event: events.Event) -> Commands:
        """Once it is over for its worker, nothing that it waited for lets it go on. Like the method
        below, and what they call, it hands a generator on: a request passes here many times."""
        if self.is_over:
            return self._ignore(event)
        return super().handle_event(event)

    def _ignore(self, _event: events.Event) -> Commands:
        yield from ()

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, RequestTrailers) and not self._may_take(event):
            return self._refuse()
        handled: Commands = super()._handle_event(event)
        return handled

    def _refuse(self) -> Commands:
        self.client_state = self.server_state = self.state_errored
        client, code = self.context.client, ErrorCode.KILL
        yield SendHttp(ResponseProtocolError(self.stream_id, "refused", code), client)

    def _may_take(self, event: RequestTrailers) -> bool:
        return self._guard.take_trailers(self.stream_id, event.trailers)

    def send_response(self, already_streamed: bool = False) -> Commands:
        yield from super().send_response(already_streamed)
        is_early = (
            self.server_state == self.state_done
            and self.client_state == self.state_stream_request_body
        )
        if is_early:
            yield from self._end_early()

    def _end_early(self) -> Commands:
        """The whole answer is there and the request is not: what else comes of it goes nowhere, and
        its server, which has read no whole request, is not asked anything more."""
        client, code = self.context.client, ErrorCode.PASSTHROUGH_CLOSE
        if not self._guard.is_multiplexed:
            self._guard.reset_servers()
        yield SendHttp(ResponseEndOfMessage(self.stream_id), client)
        self.client_state = self.state_errored
        yield SendHttp(ResponseProtocolError(self.stream_id, "answered", code), client)

    def flow_done(self) -> Commands:
        """A 101 that was accepted: what follows is a WebSocket's. mitmproxy would take it for raw
        TCP, or end here."""
        response = self.flow.response
        if response is None or response.status_code != 101:
            yield from super().flow_done()
            return
        if not self._guard.socket_opens(self.stream_id):
            raise RuntimeError("a 101 that nobody accepted")  # the handler resets both sides
        self.child_layer = WebSocketLayer(self.context, self.stream_id, self._guard)
        self._handle_event = self.passthrough  # type: ignore[method-assign]
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    @property
    def waits(self) -> bool:
        """Whether it waits for an answer, and keeps what comes meanwhile."""
        return self._paused is not None
