"""The worker's side of HTTP/2: strict heads in, our answers out, one stream at a time refused.

A head that is malformed is answered on its stream, and so is every refusal and every upstream
failure; the other streams go on. A connection that is itself malformed ends with GOAWAY; one that
floods is reset. After the answer to a threat nothing goes on.
"""

from typing import Any, Final

import h2.errors
import h2.events
import h2.exceptions
from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http2 import Http2Server, StreamState

from palyra_egress.proxy.guard.http_guard import HttpGuard
from palyra_egress.proxy.guard.turn import Turn, response_of
from palyra_egress.proxy.http.denial import Answer
from palyra_egress.proxy.http.h2_connection import (
    BoundedH2Connection,
    Commands,
    CreditedHttp2,
    Farewell,
    HeadOverdue,
    ReleaseCredit,
)
from palyra_egress.proxy.http.layers import REASON_OF_CODE
from palyra_egress.proxy.http.stream_head import StreamHead, check_stream_head
from palyra_egress.proxy.http.versions import http2_response_fields
from palyra_egress.reasons import Reason

DISCARD_FOR_MS: Final = 2_000


class StrictHttp2Server(CreditedHttp2, Http2Server):
    """Speaks HTTP/2 with one worker."""

    def __init__(self, context: Context, guard: HttpGuard) -> None:
        super().__init__(context)
        self._guard = guard
        self.h2_conn: BoundedH2Connection = BoundedH2Connection(
            client_side=False, clock=guard.now_monotonic_ms, validates=False
        )
        self._answered: set[int] = set()
        self._bodiless: set[int] = set()
        self._answered_early: dict[int, int] = {}

    def _handle_event(self, event: events.Event) -> Commands:
        match event:
            case ReleaseCredit():
                yield from self.release(event)
                yield from self._end_refused()
            case HeadOverdue():
                self._guard.refuse_head(Reason.REQUEST_TIMEOUT)
                yield from self.protocol_error("late", h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
            case Farewell():
                yield from self._hang_up()
            case ResponseHeaders():
                yield from self._send_head(event.stream_id, event.response, event.end_stream)
            case ResponseProtocolError():
                yield from self._fail(event)
            case ResponseData() if event.stream_id in self._bodiless:
                pass  # a refusal of HEAD has a body everywhere else
            case ResponseEndOfMessage():
                yield from super()._handle_event(event)
                self.h2_conn.answered()
                if self._guard.ends_connection(event.stream_id):
                    yield from self._hang_up()
            case _:
                yield from super()._handle_event(event)
                yield from self._end_refused()

    # --- requests in ----------------------------------------------------------------------------

    def handle_h2_event(self, event: Any) -> layer.CommandGenerator[bool]:
        match event:
            case h2.events.RequestReceived():
                return (yield from self._begin(event))
            case h2.exceptions.DenialOfServiceError():
                self._guard.flooded(by_worker=True)
                yield from self.close_connection("flood")
                return True
            case h2.exceptions.ProtocolError():
                self._guard.refuse_head(Reason.REQUEST_MALFORMED)
                yield from self.protocol_error("malformed", event.error_code)
                return True
            case h2.events.TrailersReceived() if event.stream_id not in self.streams:
                return False
            case h2.events.PriorityUpdated() | h2.events.UnknownFrameReceived():
                return False
            case _:
                return (yield from super().handle_h2_event(event))

    def _begin(self, event: Any) -> layer.CommandGenerator[bool]:
        """A stream was opened: check its head, and hand the request on; whether that was the last
        one."""
        stream_id, ends = event.stream_id, event.stream_ended is not None
        checked = check_stream_head(event.headers, ends=ends)
        if isinstance(checked, Reason):
            if not self.h2_conn.refused_head():
                self._guard.flooded(by_worker=True)
                yield from self.close_connection("flood")
                return True
            yield from self._answer(stream_id, self._guard.refuse_head(checked))
            return False
        if checked.head.method == "HEAD":
            self._bodiless.add(stream_id)
        flow = http.HTTPFlow(self.context.client, self.context.server)
        self._guard.begin(
            Turn(stream_id, flow.id, checked.head, checked.authority, has_body=not ends)
        )
        self.streams[stream_id] = StreamState.HEADERS_RECEIVED
        yield ReceiveHttp(RequestHeaders(stream_id, _request_of(checked), ends, flow))
        return False

    @property
    def head_since_ms(self) -> int | None:
        """Since when a head comes in that is not whole; None where there is none."""
        return self.h2_conn.unfinished_since_ms

    # --- responses out --------------------------------------------------------------------------

    def _send_head(self, stream_id: int, response: http.Response, ends: bool) -> Commands:
        if not self.is_open_for_us(stream_id):
            return
        if response.status_code >= 200:
            self._answered.add(stream_id)
        self.h2_conn.send_headers(stream_id, http2_response_fields(response), end_stream=ends)
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    def _fail(self, event: ResponseProtocolError) -> Commands:
        """A stream ends without (the rest of) its response."""
        stream_id = event.stream_id
        if self.is_closed(stream_id):
            return
        answer = None
        if stream_id not in self._answered:
            answer = self._guard.answer_for(stream_id, REASON_OF_CODE.get(event.code))
        if answer is not None and self.is_open_for_us(stream_id):
            yield from self._answer(stream_id, answer)
            if self._guard.ends_connection(stream_id):
                yield from self._hang_up()
            return
        if event.code is ErrorCode.PASSTHROUGH_CLOSE:  # answered before the request was complete
            self.streams.pop(stream_id, None)
            self._answered_early[stream_id] = self._guard.now_monotonic_ms()
            yield from self._end_refused()
            return
        is_cancelled = event.code is ErrorCode.CANCEL
        codes = h2.errors.ErrorCodes
        self._reset(stream_id, codes.CANCEL if is_cancelled else codes.INTERNAL_ERROR)
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    def _answer(self, stream_id: int, answer: Answer) -> Commands:
        """Answer a stream by ourselves, and take nothing more of it."""
        self._answered.add(stream_id)
        self.streams.pop(stream_id, None)
        fields = http2_response_fields(response_of(answer))
        has_body = stream_id not in self._bodiless
        self.h2_conn.send_headers(stream_id, fields, end_stream=not has_body)
        if has_body:
            self.h2_conn.send_data(stream_id, answer.body, end_stream=True)
        self.h2_conn.answered()
        self._answered_early[stream_id] = self._guard.now_monotonic_ms()
        yield from self._end_refused()

    @property
    def lingers(self) -> bool:
        """Whether there are streams that were answered and whose body still comes in."""
        return bool(self._answered_early)

    def _end_refused(self) -> Commands:
        """Throw the rest of a body away for a while, since some clients lose an answer to a reset;
        then reset the stream."""
        if not self._answered_early:
            return
        now = self._guard.now_monotonic_ms()
        for stream_id, since in list(self._answered_early.items()):
            if self.is_closed(stream_id):
                del self._answered_early[stream_id]
            elif not self.h2_conn.waiting_bytes(stream_id) and now - since >= DISCARD_FOR_MS:
                self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        self.streams.pop(stream_id, None)
        self._answered_early.pop(stream_id, None)
        self.h2_conn.reset_stream(stream_id, code)

    def _hang_up(self) -> Commands:
        """Nothing goes on behind what was just sent."""
        self.h2_conn.close_connection()
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        yield from self.close_connection("refused")

    def keep(self, stream_ids: set[int]) -> None:
        """Only these streams are open."""
        self._answered &= stream_ids
        self._bodiless &= stream_ids


def _request_of(checked: StreamHead) -> http.Request:
    """The request as mitmproxy's layers take it; where it goes is not theirs to decide."""
    return http.Request(
        host="",
        port=0,
        method=checked.head.method.encode(),
        scheme=b"https",
        authority=checked.authority.encode(),
        path=checked.head.target.encode(),
        http_version=b"HTTP/2.0",
        headers=http.Headers(checked.fields),
        content=None,
        trailers=None,
        timestamp_start=0.0,
        timestamp_end=None,
    )
