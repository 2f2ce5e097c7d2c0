"""The protocol layers we put between a worker's bytes and mitmproxy's HTTP streams.

`StrictHttp1Server` checks every request head before it is parsed, caps it, and writes every refusal
and every upstream failure in our words. `JudgedHttpLayer` is mitmproxy's HTTP layer with that
server in front. `RefusedLayer` is what every other protocol meets: it closes and forwards nothing.
"""

from typing import Any, Protocol

from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode, HttpStream
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    RequestProtocolError,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import Http1Server, make_body_reader

from palyra_egress.proxy.denial import Answer
from palyra_egress.proxy.request_head import (
    MAX_HEAD_BYTES,
    RequestHead,
    check_head,
    head_end,
    leading_empty_lines,
)
from palyra_egress.reasons import Reason

MAX_DISCARDED_BYTES = 1 << 20
DISCARD_FOR_S = 2.0

type Commands = layer.CommandGenerator[Any]

_REASON_OF_CODE = {
    ErrorCode.CONNECT_FAILED: Reason.UPSTREAM_UNREACHABLE,
    ErrorCode.GENERIC_SERVER_ERROR: Reason.UPSTREAM_PROTOCOL,
    ErrorCode.RESPONSE_VALIDATION_FAILED: Reason.UPSTREAM_PROTOCOL,
    ErrorCode.RESPONSE_TOO_LARGE: Reason.RESPONSE_TOO_LARGE,
    ErrorCode.REQUEST_TOO_LARGE: Reason.REQUEST_TOO_LARGE,
    ErrorCode.REQUEST_VALIDATION_FAILED: Reason.REQUEST_MALFORMED,
    ErrorCode.GENERIC_CLIENT_ERROR: Reason.REQUEST_MALFORMED,
    ErrorCode.DESTINATION_UNKNOWN: Reason.REQUEST_MALFORMED,
}


class Answerer(Protocol):
    """What the strict server needs of its connection's guard."""

    head: RequestHead | None

    def refuse_head(self, reason: Reason) -> Answer:
        """Audit a refusal before there is a request, and give its answer."""
        ...

    def answer_for(self, reason: Reason | None) -> Answer | None:
        """The answer that was prepared for the current request, or the generic one for a failure
        (`reason`); None when nothing may be said any more."""
        ...

    def check_leaving(self, request: http.Request) -> None:
        """Raises unless this head is, to the letter, the one that was granted."""
        ...


class StrictHttp1Server(Http1Server):
    """The worker's side of HTTP/1: strict heads in, our answers out."""

    def __init__(self, context: Context, guard: Answerer) -> None:
        super().__init__(context)
        self._guard = guard
        self._discarded = 0

    def read_headers(self, event: events.Event) -> Commands:
        if not isinstance(event, events.DataReceived):
            if isinstance(event, events.ConnectionClosed):
                yield commands.CloseConnection(self.conn)
            return
        data = bytes(self.buf)
        if empty := leading_empty_lines(data):
            self.buf.maybe_extract_at_most(empty)
            data = data[empty:]
        end = head_end(data)
        if end is None and len(data) <= MAX_HEAD_BYTES:
            return
        head = check_head(data[: end or len(data)])
        if isinstance(head, Reason):
            yield from self._refuse_head(head)
            return
        self._guard.head = head
        yield from self._read_request(event)

    def _read_request(self, event: events.Event) -> Commands:
        """Parse the checked head and hand the request to its stream."""
        lines = self.buf.maybe_extract_lines()
        try:
            self.request = http1.read_request_head([bytes(line) for line in lines or ()])
            body_size = http1.expected_http_body_size(self.request)
        except ValueError:
            yield from self._refuse_head(Reason.REQUEST_MALFORMED)
            return
        yield ReceiveHttp(RequestHeaders(self.stream_id, self.request, body_size == 0))
        self.body_reader = make_body_reader(body_size)
        self.state = self.read_body
        yield from self.state(event)

    def read_body(self, event: events.Event) -> Commands:
        try:
            yield from super().read_body(event)
        except NotImplementedError:  # trailers: mitmproxy's HTTP/1 does not carry them
            yield commands.CloseConnection(self.conn)
            message, code = "trailers are not carried", ErrorCode.GENERIC_CLIENT_ERROR
            yield ReceiveHttp(RequestProtocolError(self.stream_id, message, code))

    def _refuse_head(self, reason: Reason) -> Commands:
        yield commands.SendData(self.conn, self._guard.refuse_head(reason).to_bytes())
        yield from self._discard_then_close()

    def send(self, event: HttpEvent) -> Commands:
        if not isinstance(event, ResponseProtocolError):
            yield from super().send(event)
            return
        answer = None
        if self.response is None or self.response.status_code == 100:
            answer = self._guard.answer_for(_REASON_OF_CODE.get(event.code))
        if answer is None:
            yield commands.CloseConnection(self.conn)
            return
        yield commands.SendData(self.conn, answer.to_bytes())
        yield from self._discard_then_close()

    def _discard_then_close(self) -> Commands:
        """Let a client that is still sending read the answer: throw a bounded rest away first."""
        self.state = self.discard
        yield commands.RequestWakeup(DISCARD_FOR_S)
        yield commands.CloseTcpConnection(self.conn, half_close=True)

    def discard(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            self._discarded += len(event.data)
            self.buf.maybe_extract_at_most(len(self.buf))
            if self._discarded <= MAX_DISCARDED_BYTES:
                return
        yield commands.CloseConnection(self.conn)


class JudgedHttpLayer(HttpLayer):
    """mitmproxy's HTTP layer with the strict server towards the worker."""

    def __init__(self, context: Context, mode: HTTPMode, guard: Answerer) -> None:
        super().__init__(context, mode)
        self._guard = guard

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            strict = StrictHttp1Server(self.context.fork(), self._guard)
            self.connections.setdefault(self.context.client, strict)
        yield from super()._handle_event(event)

    def event_to_child(self, child: layer.Layer | HttpStream, event: events.Event) -> Commands:
        """The last place before a head is written upstream, behind every hook: what is not the
        granted request raises here, and the handler resets both sides."""
        if isinstance(event, RequestHeaders) and not isinstance(child, HttpStream):
            self._guard.check_leaving(event.request)
        yield from super().event_to_child(child, event)


class RefusedLayer(layer.Layer):
    """Closes the worker's connection and forwards nothing."""

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


def response_of(answer: Answer) -> http.Response:
    """An answer as mitmproxy's response object, for flows that are answered without an upstream."""
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=answer.status,
        reason=answer.phrase.encode(),
        headers=http.Headers([(n.encode(), v.encode()) for n, v in answer.headers]),
        content=answer.body,
        trailers=None,
        timestamp_start=0.0,
        timestamp_end=0.0,
    )
