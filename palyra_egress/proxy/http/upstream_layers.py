"""The upstream's side of HTTP, in both versions: where a granted head is written, and only there.

Right before a head is written, behind every hook and every queue, the guard is asked for what
leaves: the sealed request with its credentials. It is put into the words of the server's version
then, so that a body without a length goes to an HTTP/1 server in chunks. A body that turns out
longer or shorter than its length ends the connection.
Interim responses are passed on as far as the guard says; a final 101 is an answer like others.
"""

import re
from dataclasses import replace
from typing import Any, Final

import h2.events
import h2.exceptions
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import RegisterHttpConnection, SendHttp
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import Http1Client
from mitmproxy.proxy.layers.http._http2 import Http2Client, StreamState

from palyra_egress.proxy.guard.http_guard import HttpGuard
from palyra_egress.proxy.http.chunks import body_reader
from palyra_egress.proxy.http.h2_connection import (
    BoundedH2Connection,
    Commands,
    CreditedHttp2,
    ReleaseCredit,
)
from palyra_egress.proxy.http.http1_body import ChunkedBody
from palyra_egress.proxy.http.versions import as_http1_request, http2_request_fields

_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_HTTP1: Final = (b"HTTP/1.0", b"HTTP/1.1")
_WITHOUT_BODY: Final = frozenset({b"204", b"304"})


class JudgedUpstream(layer.Layer):
    """Opens one upstream connection, and speaks with it what its TLS agreed on."""

    http: "StrictHttp1Client | JudgedHttp2Client | None" = None

    def __init__(self, context: Context, guard: HttpGuard) -> None:
        super().__init__(context)
        self._guard = guard

    def _handle_event(self, event: events.Event) -> Commands:
        server = self.context.server
        error: str | None = yield commands.OpenConnection(server)
        if not error:
            speaks_http2 = server.alpn == b"h2"
            kind = JudgedHttp2Client if speaks_http2 else StrictHttp1Client
            self.http = kind(self.context, self._guard)
            self._handle_event = self.http.handle_event  # type: ignore[method-assign]
            yield from self._handle_event(event)
        yield RegisterHttpConnection(server, error)

    @property
    def is_free(self) -> bool:
        """Whether a new request may go over it."""
        if isinstance(self.http, JudgedHttp2Client):
            return self.http.takes_streams
        return isinstance(self.http, StrictHttp1Client) and self.http.is_idle

    @property
    def is_spare(self) -> bool:
        """Whether it is open and carries nothing."""
        if isinstance(self.http, JudgedHttp2Client):
            return self.http.takes_streams and not self.http.carries_any
        return self.is_free

    def retire(self) -> None:
        """Carry nothing new. In HTTP/1 the end of its one exchange closes the connection."""
        if isinstance(self.http, JudgedHttp2Client):
            self.http.is_retired = True


class StrictHttp1Client(ChunkedBody, Http1Client):
    """Speaks HTTP/1.1 with one server, one exchange at a time."""

    def __init__(self, context: Context, guard: HttpGuard) -> None:
        super().__init__(context)
        self._guard = guard
        self._owed: int | None = None
        self._is_over = False

    @property
    def is_idle(self) -> bool:
        return self.stream_id is None and self.conn.connected and not self._is_over

    def send(self, event: HttpEvent) -> Commands:
        match event:
            case _ if self._is_over:
                pass  # nothing may complete what was given up
            case RequestHeaders():
                granted = self._guard.leaving(event.stream_id, event.request, self.conn)
                made = as_http1_request(granted, has_body=not event.end_stream)
                length = made.headers.get("content-length")
                self._owed = None if length is None else int(length)
                self.trailers = None
                yield from super().send(replace(event, request=made))
            case RequestProtocolError() if event.stream_id != self.stream_id:
                pass
            case RequestProtocolError():
                self._is_over = True
                yield commands.CloseConnection(self.conn)
            case RequestTrailers():
                self.trailers = event.trailers
            case RequestData() if self._is_beyond(len(event.data)):
                yield from self._give_up()
            case RequestEndOfMessage() if self._owed:
                yield from self._give_up()
            case RequestEndOfMessage():
                yield from self.with_trailers(super().send(event))
                self._guard.left_whole(event.stream_id)
            case _:
                yield from super().send(event)

    def _is_beyond(self, count: int) -> bool:
        """Count body bytes that leave against the length that was told."""
        if self._owed is None:
            return False
        self._owed -= count
        return self._owed < 0

    def _give_up(self) -> Commands:
        """What was told and what comes differ: nothing more may be read as anything."""
        self._is_over = True
        yield commands.CloseConnection(self.conn)
        if self.stream_id is not None:
            message, code = "the body's length is wrong", ErrorCode.GENERIC_CLIENT_ERROR
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, message, code))

    def read_headers(self, event: events.Event) -> Commands:
        if not isinstance(event, events.DataReceived) or self.request is None:
            yield from super().read_headers(event)  # type: ignore[arg-type]
            return
        stream_id = self.stream_id
        while stream_id is not None and (lines := self.buf.maybe_extract_lines()):
            try:
                response = http1.read_response_head([bytes(line) for line in lines])
                if response.data.http_version not in _HTTP1:
                    raise ValueError("another version than the connection's")
                size = http1.expected_http_body_size(self.request, response)
            except ValueError:
                yield commands.CloseConnection(self.conn)
                message, code = "no valid response", ErrorCode.GENERIC_SERVER_ERROR
                yield ReceiveHttp(ResponseProtocolError(stream_id, message, code))
                return
            if 100 <= response.status_code < 200 and response.status_code != 101:
                yield from pass_interim(self._guard, self.context, stream_id, response)
                continue
            self.response = response
            yield ReceiveHttp(ResponseHeaders(stream_id, response, size == 0))
            self.body_reader = body_reader(size)
            self.state = self.read_body
            yield from self.state(event)
            return


def pass_interim(
    guard: HttpGuard, context: Context, stream_id: int, response: http.Response
) -> Commands:
    """Pass an interim response on, past the stream, which knows final ones only."""
    if guard.admit_interim(stream_id, response):
        yield SendHttp(ResponseHeaders(stream_id, response), context.client)


class JudgedHttp2Client(CreditedHttp2, Http2Client):
    """Speaks HTTP/2 with one server. `is_retired` closes the connection with its last stream."""

    is_retired = False

    def __init__(self, context: Context, guard: HttpGuard) -> None:
        super().__init__(context)
        self._guard = guard
        self._requests: dict[int, http.Request] = {}
        self._owed: dict[int, int] = {}
        self._bodiless: set[int] = set()
        self._ending: set[int] = set()  # requests that are whole here, and perhaps not there
        self.h2_conn: BoundedH2Connection = BoundedH2Connection(
            client_side=True, clock=guard.now_monotonic_ms, validates=True
        )

    @property
    def takes_streams(self) -> bool:
        """Whether new streams may be opened."""
        has_ids = self.h2_conn.highest_outbound_stream_id < 2**31 - 1000
        goes_on = not (self.h2_conn.goes_away or self.is_retired)
        return self.conn.connected and goes_on and has_ids

    def own_stream(self, stream_id: int) -> int | None:
        """The number here of a worker's stream."""
        return self.our_stream_id.get(stream_id)

    def waiting_bytes(self, stream_id: int) -> int:
        ours = self.our_stream_id.get(stream_id)
        return 0 if ours is None else self.h2_conn.waiting_bytes(ours)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, ReleaseCredit):
            yield from self.release(event)
            return
        if isinstance(event, HttpEvent) and event.stream_id not in self.our_stream_id:
            if isinstance(event, RequestHeaders):
                if not self.takes_streams:
                    message, code = "the server takes no more", ErrorCode.GENERIC_SERVER_ERROR
                    yield ReceiveHttp(ResponseProtocolError(event.stream_id, message, code))
                    return
            elif event.stream_id not in self.stream_queue:
                return  # over already
            elif isinstance(event, RequestProtocolError):
                del self.stream_queue[event.stream_id]
                return
        yield from super()._handle_event(event)
        if isinstance(event, events.DataReceived):
            yield from self._after_data()
        self._tell_left_whole()
        if isinstance(event, RequestProtocolError):
            self.streams.pop(event.stream_id, None)  # by now its number here
        if self.is_retired and self.conn.connected and not self.carries_any:
            yield commands.CloseConnection(self.conn)

    @property
    def carries_any(self) -> bool:
        return bool(self.h2_conn.open_outbound_streams or self.stream_queue)

    def _tell_left_whole(self) -> None:
        """A request has left when nothing of it waits for the server's window any more."""
        for ours in [one for one in self._ending if not self.h2_conn.waiting_bytes(one)]:
            self._ending.discard(ours)
            if ours in self.their_stream_id:
                self._guard.left_whole(self.their_stream_id[ours])

    def _handle_event2(self, event: events.Event) -> Commands:
        if not isinstance(event, RequestHeaders):
            yield from super()._handle_event2(event)
            if isinstance(event, RequestEndOfMessage):
                self._ending.add(event.stream_id)
            return
        ours, theirs = event.stream_id, self.their_stream_id[event.stream_id]
        request = self._guard.leaving(theirs, event.request, self.conn)
        wants_trailers = self._guard.wants_trailers(theirs)
        fields = http2_request_fields(request, wants_trailers=wants_trailers)
        self.h2_conn.send_headers(ours, fields, end_stream=event.end_stream)
        self.streams[ours] = StreamState.EXPECTING_HEADERS
        self._requests[ours] = event.request
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    def handle_h2_event(self, event: Any) -> layer.CommandGenerator[bool]:
        match event:
            case h2.events.InformationalResponseReceived():
                yield from self._interim(event)
                return False
            case h2.exceptions.DenialOfServiceError():
                self._guard.flooded(by_worker=False)
                yield from self.close_connection("flood")
                return True
            case h2.events.ResponseReceived() if not self._lengths_agree(event):
                yield from self.protocol_error("a length without a body")
                return True
            case h2.events.StreamEnded() if self._owed.pop(event.stream_id, 0):
                yield from self.protocol_error("a body shorter than its length")
                return True
            case h2.events.PriorityUpdated() | h2.events.UnknownFrameReceived():
                return False
            case h2.events.DataReceived() if event.data and event.stream_id in self._bodiless:
                yield from self.protocol_error("a body where none may be")
                return True
            case h2.events.DataReceived() if event.stream_id in self._owed:
                self._owed[event.stream_id] -= len(event.data)
        return (yield from super().handle_h2_event(event))

    def _lengths_agree(self, event: Any) -> bool:
        """Whether the body that is told comes: towards HTTP/1 the next response would be read as
        the body of this one."""
        request = self._requests.get(event.stream_id)
        named = [value for name, value in event.headers if name == b"content-length"]
        if request is None or len(named) > 1 or not all(_LENGTH.fullmatch(one) for one in named):
            return False
        status = dict(event.headers)[b":status"]
        if request.method == "HEAD" or status in _WITHOUT_BODY:
            self._bodiless.add(event.stream_id)
            return True
        if not named:
            return True
        if event.stream_ended is not None:
            return int(named[0]) == 0
        self._owed[event.stream_id] = int(named[0])
        return True

    def _interim(self, event: Any) -> Commands:
        theirs = self.their_stream_id.get(event.stream_id)
        fields = [field for field in event.headers if not field[0].startswith(b":")]
        status = int(dict(event.headers)[b":status"])
        response = http.Response.make(status, b"", http.Headers(fields))
        if theirs is not None:
            yield from pass_interim(self._guard, self.context, theirs, response)

    def _after_data(self) -> Commands:
        """What the server said may have ended streams: forget them, and fail those that it will not
        take any more."""
        connection = self.h2_conn
        if connection.goes_away:
            for ours in [one for one in self.streams if one > connection.last_stream_id]:
                del self.streams[ours]
                theirs = self.their_stream_id[ours]
                message, code = "the server went away", ErrorCode.GENERIC_SERVER_ERROR
                yield ReceiveHttp(ResponseProtocolError(theirs, message, code))
            if not self.streams and not connection.open_outbound_streams:
                yield commands.CloseConnection(self.conn)
        for ours in [one for one in self._requests if self.is_closed(one)]:
            del self._requests[ours]
            self._owed.pop(ours, None)
            self._bodiless.discard(ours)
            theirs = self.their_stream_id[ours]
            if ours not in self._held.bytes_of:
                del self.their_stream_id[ours], self.our_stream_id[theirs]
