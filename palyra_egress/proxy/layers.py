"""The protocol layers we put between a worker's bytes and mitmproxy's HTTP streams.

`StrictHttp1Server` checks every request head before it is parsed, caps it, and writes every refusal
and every upstream failure in our words. `JudgedHttpLayer` is mitmproxy's HTTP layer with that
server in front, and with a bound on what either side may send that nothing can be made of yet.
`BoundedClientTls` bounds the ClientHello. `RefusedLayer` is what every other protocol meets: it
closes and forwards nothing.
"""

from dataclasses import replace
from typing import Any, Final, Protocol

from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode, HttpStream
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    RequestProtocolError,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import Http1Connection, Http1Server, make_body_reader

from palyra_egress.proxy.denial import Answer
from palyra_egress.proxy.request_head import (
    MAX_HEAD_BYTES,
    RequestHead,
    check_head,
    head_end,
    leading_empty_lines,
)
from palyra_egress.reasons import Reason

MAX_DISCARDED_BYTES: Final = 1 << 20
DISCARD_FOR_S: Final = 2.0
MAX_BLANK_BYTES: Final = 64  # empty lines before a request, which RFC 9112 section 2.2 lets pass
MAX_UNPARSED_BYTES: Final = 256 * 1024  # heads, chunk lines, trailers, pipelined requests
MAX_HELLO_BYTES: Final = 32 * 1024
MAX_HELLO_RECORDS: Final = 16
_RECORD_HEAD_BYTES: Final = 5

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

    def leaving(self, request: http.Request, server: object) -> http.Request:
        """What is written to `server` for this head. Raises unless the head is, to the letter, the
        one that was granted, and the server one that may see it."""
        ...

    def flooded(self, *, by_worker: bool) -> None:
        """One side sends without end what is no message: audit it and reset both sides."""
        ...


class StrictHttp1Server(Http1Server):
    """The worker's side of HTTP/1: strict heads in, our answers out."""

    def __init__(self, context: Context, mode: HTTPMode, guard: Answerer) -> None:
        super().__init__(context)
        self._mode = mode
        self._guard = guard
        self._discarded = 0
        self._blank = 0
        self._searched = 0

    def read_headers(self, event: events.Event) -> Commands:
        if not isinstance(event, events.DataReceived):
            if isinstance(event, events.ConnectionClosed):
                yield commands.CloseConnection(self.conn)
            return
        data = self._without_blank_lines()
        end = head_end(data, self._searched)
        if end is None and len(data) <= MAX_HEAD_BYTES and self._blank <= MAX_BLANK_BYTES:
            self._searched = max(0, len(data) - 3)
            return
        self._blank = self._searched = 0
        head = check_head(data[: end or len(data)])
        if not isinstance(head, Reason) and not self._has_form(head):
            head = Reason.REQUEST_MALFORMED
        if isinstance(head, Reason):
            yield from self._refuse_head(head)
            return
        self._guard.head = head
        yield from self._read_request(event)

    def _without_blank_lines(self) -> bytes:
        """What is buffered, without the empty lines that some clients send before a request."""
        data = bytes(self.buf)
        blank = leading_empty_lines(data)
        if not blank:
            return data
        self.buf.maybe_extract_at_most(blank)
        self._blank += blank
        self._searched = 0
        return data[blank:]

    def _has_form(self, head: RequestHead) -> bool:
        """Whether the target has the form of this place: mitmproxy would answer an origin-form
        request outside a tunnel by itself, past every hook."""
        if self._mode is HTTPMode.transparent or head.method == "CONNECT":
            return True
        return "://" in head.target

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
            strict = StrictHttp1Server(self.context.fork(), self.mode, self._guard)
            self.connections.setdefault(self.context.client, strict)
        yield from super()._handle_event(event)
        if isinstance(event, events.DataReceived):
            self._bound(event)

    def _bound(self, event: events.DataReceived) -> None:
        """Give up on a side that has sent too much of what nothing can be made of yet."""
        if self._unparsed_bytes(event) > MAX_UNPARSED_BYTES:
            self._guard.flooded(by_worker=event.connection == self.context.client)

    def _unparsed_bytes(self, event: events.DataReceived) -> int:
        handler = self.connections.get(event.connection)
        http1_connection = handler.context.layers[-1] if handler is not None else None
        return len(http1_connection.buf) if isinstance(http1_connection, Http1Connection) else 0

    def event_to_child(self, child: layer.Layer | HttpStream, event: events.Event) -> Commands:
        """The last place before a head is written upstream, behind every hook: what is not the
        granted request raises here, and the handler resets both sides. What is written from here on
        may hold credentials; no hook and no flow sees it."""
        if isinstance(event, RequestHeaders) and not isinstance(child, HttpStream):
            server = next((conn for conn, its in self.connections.items() if its is child), None)
            event = replace(event, request=self._guard.leaving(event.request, server))
        yield from super().event_to_child(child, event)


class BoundedClientTls(ClientTLSLayer):
    """mitmproxy's TLS towards the worker; a ClientHello in endless small records is given up on,
    because each new byte makes mitmproxy read all of them again."""

    def receive_handshake_data(self, data: bytes) -> Commands:
        if not self.client_hello_parsed and is_endless_hello(bytes(self.recv_buffer) + data):
            return False, "the ClientHello does not end"
        return (yield from super().receive_handshake_data(data))


def is_endless_hello(data: bytes) -> bool:
    """Whether a ClientHello that is not complete yet has had its chance."""
    if len(data) > MAX_HELLO_BYTES:
        return True
    offset = 0
    for _ in range(MAX_HELLO_RECORDS):
        if len(data) < offset + _RECORD_HEAD_BYTES:
            return False
        offset += _RECORD_HEAD_BYTES + int.from_bytes(data[offset + 3 : offset + 5])
    return len(data) > offset


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
