"""Bodies of HTTP/1 with their trailers, for both sides: mitmproxy's own reader does not know any.

Trailers travel in chunked messages only. Received, they are handed on as an event of their own;
written, they stand between the last chunk and the end. The chunks of one read are one piece.
Source: RFC 9112 section 7.1.
"""

from typing import Any

import h11
from mitmproxy import http
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestTrailers, ResponseTrailers
from mitmproxy.proxy.layers.http._http1 import Http1Connection, Http1Server

from palyra_egress.proxy.http.h2_connection import Commands

_LAST_CHUNK = b"0\r\n\r\n"


class ChunkedBody(Http1Connection):
    """What both sides of HTTP/1 add to mitmproxy's. `trailers` is what the current message ends
    with, until it was written."""

    trailers: http.Headers | None = None

    def body_is_broken(self, *, is_cut: bool) -> Commands:
        """The body cannot be read; `is_cut` where it ended before its end."""
        yield commands.CloseConnection(self.conn)
        if self.stream_id is None:
            return
        code = self.ReceiveProtocolError.code
        yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, "malformed body", code))

    def read_body(self, event: events.Event) -> Commands:
        """Whatever of the body one read brought is handed on together: chunks are how it travels
        and mean nothing (RFC 9112 section 7.1), and each that is handed on by itself costs the
        proxy, and so everybody, twenty times what reading it costs."""
        stream_id = self.stream_id
        if stream_id is None:
            return
        data, end, is_broken = bytearray(), None, False
        try:
            while (got := self._next_of_body(event)) is not None:
                if not isinstance(got, h11.Data):
                    end = got
                    break
                data += got.data
        except h11.ProtocolError:
            is_broken = True
        if data:
            yield ReceiveHttp(self.ReceiveData(stream_id, bytes(data)))
        if is_broken:
            yield from self.body_is_broken(is_cut=isinstance(event, events.ConnectionClosed))
        elif end is not None:
            yield from self._body_ends(stream_id, list(end.headers))

    def _next_of_body(self, event: events.Event) -> Any:
        if isinstance(event, events.ConnectionClosed):
            return self.body_reader.read_eof()
        return self.body_reader(self.buf)

    def _body_ends(self, stream_id: int, trailers: list[tuple[bytes, bytes]]) -> Commands:
        is_request = isinstance(self, Http1Server)
        if trailers:
            kind = RequestTrailers if is_request else ResponseTrailers
            yield ReceiveHttp(kind(stream_id, http.Headers(trailers)))
        if self.request is not None and self.request.method != "CONNECT":
            yield ReceiveHttp(self.ReceiveEndOfMessage(stream_id))
        yield from self.mark_done(request=is_request, response=not is_request)

    def with_trailers(self, end: Commands) -> Commands:
        """The commands that end a message, with its trailers behind its last chunk."""
        trailers, self.trailers = self.trailers, None
        for command in end:
            ends = isinstance(command, commands.SendData) and command.data == _LAST_CHUNK
            if trailers is not None and ends:
                lines = [name + b": " + value for name, value in trailers.fields]
                yield commands.SendData(self.conn, b"\r\n".join([b"0", *lines, b"", b""]))
            else:
                yield command
