"""The protocol layers we put between a worker's bytes and mitmproxy's HTTP streams.

`StrictHttp1Server` checks every request head before it is parsed, caps it, and writes every refusal
and every upstream failure in our words. `RefusedLayer` is what every other protocol meets: it
closes and forwards nothing.
"""

from dataclasses import replace
from typing import Any, Final

from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    RequestProtocolError,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._http1 import Http1Server

from palyra_egress.proxy.bounds.wakeups import AfterLastByte
from palyra_egress.proxy.guard.exchange import body_may_follow
from palyra_egress.proxy.guard.http_guard import HttpGuard
from palyra_egress.proxy.guard.turn import Turn
from palyra_egress.proxy.http.chunks import body_reader
from palyra_egress.proxy.http.h2_connection import HeadOverdue
from palyra_egress.proxy.http.http1_body import ChunkedBody
from palyra_egress.proxy.http.request_head import (
    MAX_HEAD_BYTES,
    RequestHead,
    check_head,
    head_end,
    leading_empty_lines,
)
from palyra_egress.proxy.http.versions import as_http1_response
from palyra_egress.reasons import Reason

MAX_DISCARDED_BYTES: Final = 1 << 20
DISCARD_FOR_S: Final = 2.0
MAX_LINGERS: Final = 15  # times that long, while the worker goes on reading its answer
MAX_BLANK_BYTES: Final = 64  # empty lines before a request, which RFC 9112 section 2.2 lets pass
MAX_HELLO_BYTES: Final = 32 * 1024
MAX_HELLO_RECORDS: Final = 16
_RECORD_HEAD_BYTES: Final = 5

type Commands = layer.CommandGenerator[Any]

REASON_OF_CODE: Final = {
    ErrorCode.CONNECT_FAILED: Reason.UPSTREAM_UNREACHABLE,
    ErrorCode.GENERIC_SERVER_ERROR: Reason.UPSTREAM_PROTOCOL,
    ErrorCode.RESPONSE_VALIDATION_FAILED: Reason.UPSTREAM_PROTOCOL,
    ErrorCode.RESPONSE_TOO_LARGE: Reason.RESPONSE_TOO_LARGE,
    ErrorCode.REQUEST_TOO_LARGE: Reason.REQUEST_TOO_LARGE,
    ErrorCode.REQUEST_VALIDATION_FAILED: Reason.REQUEST_MALFORMED,
    ErrorCode.GENERIC_CLIENT_ERROR: Reason.REQUEST_MALFORMED,
    ErrorCode.DESTINATION_UNKNOWN: Reason.REQUEST_MALFORMED,
    ErrorCode.CANCEL: Reason.UPSTREAM_PROTOCOL,  # its server: who cancels hears nothing
    ErrorCode.HTTP_1_1_REQUIRED: Reason.UPSTREAM_PROTOCOL,
}


class StrictHttp1Server(ChunkedBody, Http1Server):
    """The worker's side of HTTP/1: strict heads in, our answers out. `head_since_ms` is since when
    a head comes in that is not whole; None where there is none."""

    def __init__(self, context: Context, mode: HTTPMode, guard: HttpGuard) -> None:
        super().__init__(context)
        self._mode = mode
        self._guard = guard
        self._discarded = 0
        self._lingers = 0
        self._unsent: int | None = None
        self._blank = 0
        self._searched = 0
        self.head_since_ms: int | None = None

    def read_headers(self, event: events.Event) -> Commands:
        if not isinstance(event, events.DataReceived):
            if isinstance(event, events.ConnectionClosed):
                yield commands.CloseConnection(self.conn)
            return
        data = self._without_blank_lines()
        end = head_end(data, self._searched)
        if end is None and len(data) <= MAX_HEAD_BYTES and self._blank <= MAX_BLANK_BYTES:
            self._searched = max(0, len(data) - 3)
            if data and self.head_since_ms is None:
                self.head_since_ms = self._guard.now_monotonic_ms()
            return
        self._blank, self._searched, self.head_since_ms = 0, 0, None
        head = check_head(data[: end or len(data)])
        if not isinstance(head, Reason) and not self._has_form(head):
            head = Reason.REQUEST_MALFORMED
        if isinstance(head, Reason):
            yield from self._refuse_head(head)
            return
        yield from self._read_request(event, head)

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

    def _read_request(self, event: events.Event, head: RequestHead) -> Commands:
        """Parse the checked head and hand the request to its stream."""
        lines = self.buf.maybe_extract_lines()
        try:
            self.request = http1.read_request_head([bytes(line) for line in lines or ()])
            body_size = http1.expected_http_body_size(self.request)
        except ValueError:
            yield from self._refuse_head(Reason.REQUEST_MALFORMED)
            return
        self.response = None
        flow = http.HTTPFlow(self.context.client, self.context.server)
        has_body = body_may_follow(self.request)
        self._guard.begin(Turn(self.stream_id, flow.id, head, has_body=has_body))
        yield ReceiveHttp(RequestHeaders(self.stream_id, self.request, body_size == 0, flow))
        if has_body and self.request.method == "CONNECT":  # refused, and the rest thrown away
            self.state = self.wait
            return
        self.body_reader = body_reader(body_size)
        self.state = self.read_body
        yield from self.state(event)

    def body_is_broken(self, *, is_cut: bool) -> Commands:
        """A body that is no body: the exchange ends, and is answered if nothing was said yet. One
        that is cut is no refusal: whoever sent it has hung up, or was cut off by us."""
        message, code = "the body is malformed", ErrorCode.GENERIC_CLIENT_ERROR
        if is_cut:
            message, code = "the body is cut", ErrorCode.CLIENT_DISCONNECTED
        yield ReceiveHttp(RequestProtocolError(self.stream_id, message, code))
        if is_cut or self._has_begun_to_answer:
            yield commands.CloseConnection(self.conn)
        elif self.state == self.read_body:  # nobody has answered it meanwhile
            yield from self._refuse_head(Reason.REQUEST_MALFORMED)

    @property
    def _has_begun_to_answer(self) -> bool:
        """Nothing in words of HTTP may follow: not even behind a 101."""
        status = 0 if self.response is None else self.response.status_code
        return status >= 200 or status == 101

    def _refuse_head(self, reason: Reason) -> Commands:
        self.head_since_ms = None
        yield commands.SendData(self.conn, self._guard.refuse_head(reason).to_bytes())
        yield from self._discard_then_close()

    def send(self, event: HttpEvent) -> Commands:
        match event:
            case ResponseProtocolError():
                yield from self._fail(event)
            case HeadOverdue():
                yield from self._refuse_head(Reason.REQUEST_TIMEOUT)
            case ResponseHeaders():
                yield from self._send_head(event)
            case ResponseTrailers():
                self.trailers = event.trailers
            case ResponseEndOfMessage():
                yield from self.with_trailers(super().send(event))
                if self.response_done and not self.request_done:  # answered before its end
                    yield from self._discard_then_close()
            case _:
                yield from super().send(event)

    def _send_head(self, event: ResponseHeaders) -> Commands:
        if self.request is None:
            return
        if event.response.status_code < 200 and not self.request.is_http11:
            return  # HTTP/1.0 knows no interim responses
        made = as_http1_response(self.request, event.response)
        yield from super().send(replace(event, response=made))

    def _fail(self, event: ResponseProtocolError) -> Commands:
        if self.state == self.discard or event.stream_id != self.stream_id:
            return  # it was answered
        answer = None
        if not self._has_begun_to_answer:
            answer = self._guard.answer_for(event.stream_id, REASON_OF_CODE.get(event.code))
        if answer is None:
            yield commands.CloseConnection(self.conn)
            return
        yield commands.SendData(self.conn, answer.to_bytes())
        yield from self._discard_then_close()

    def _discard_then_close(self) -> Commands:
        """Let a client that is still sending read the answer: what it sends is thrown away for a
        while, and no more of it is read once that is much. It hears the end of the answer at once,
        and so is never reset before."""
        self.state = self.discard
        yield AfterLastByte(self.conn, DISCARD_FOR_S)

    def discard(self, event: events.Event) -> Commands:
        if isinstance(event, events.DataReceived):
            self._discarded += len(event.data)
            self.buf.maybe_extract_at_most(len(self.buf))
            if self._guard.may_discard(self.stream_id, len(event.data)):
                return
        elif isinstance(event, events.Wakeup) and self._is_read_from():
            yield commands.RequestWakeup(DISCARD_FOR_S)
            return
        yield commands.CloseConnection(self.conn)

    @property
    def has_discarded_enough(self) -> bool:
        """Whether no more is to be read of what is thrown away."""
        return self._discarded > MAX_DISCARDED_BYTES

    def _is_read_from(self) -> bool:
        """Whether the worker has taken more of its answer since the last look, and not all of it
        yet."""
        before, self._unsent = self._unsent, self._guard.untaken_bytes(self.conn)
        self._lingers += 1
        has_taken = before is None or self._unsent < before
        return self._unsent > 0 and has_taken and self._lingers < MAX_LINGERS


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
