"""mitmproxy's HTTP layer with our own sides: strict towards workers, judged towards servers.

It bounds what either side may send that nothing can be made of yet, and hands back the credit of
HTTP/2 streams when their bytes have gone on, so that what one side does not take stops the other,
stream by stream. Which servers it speaks with is `upstream_pool`'s part.
"""

from collections.abc import Iterator
from typing import Final

from mitmproxy.connection import Connection
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    HTTPMode,
)
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestProtocolError,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import Http1Connection

from palyra_egress.proxy.bounds.silence import Waits
from palyra_egress.proxy.bounds.wakeups import AwaitRoom, AwaitWord, OwnWakeup
from palyra_egress.proxy.guard.http_guard import HttpGuard
from palyra_egress.proxy.http.h2_connection import (
    Commands,
    CreditedHttp2,
    Farewell,
    HeadOverdue,
    ReleaseCredit,
)
from palyra_egress.proxy.http.h2_server import StrictHttp2Server
from palyra_egress.proxy.http.http_stream import JudgedStream
from palyra_egress.proxy.http.layers import StrictHttp1Server
from palyra_egress.proxy.http.upstream_layers import (
    JudgedHttp2Client,
    StrictHttp1Client,
)
from palyra_egress.proxy.http.upstream_pool import UpstreamPool

MAX_UNPARSED_BYTES: Final = 256 * 1024  # heads, chunk lines, trailers, pipelined requests
MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024  # to a server that is read from: more than windows hold
MAX_WAITING_BYTES: Final = 64 * 1024  # of a stream or connection, before its source is stopped
MAX_TURNS: Final = 300  # streams that are not over here; a worker may have reset them
LOOK_EVERY_S: Final = 5.0


class JudgedHttpLayer(UpstreamPool):
    """The HTTP of one worker's connection."""

    def __init__(self, context: Context, mode: HTTPMode, guard: HttpGuard) -> None:
        super().__init__(context, mode, guard)
        self._worker: StrictHttp1Server | StrictHttp2Server | None = None
        self._awaited: set[Connection] = set()
        self._looks = False

    # --- events ---------------------------------------------------------------------------------

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            yield from self._start()
        elif isinstance(event, events.ConnectionEvent) and event.connection not in self.connections:
            return  # of an upstream that was closed and forgotten
        command = event.command if isinstance(event, events.Wakeup) else None
        if isinstance(command, OwnWakeup) and command.owner is self:
            yield from self._woken(command)
        else:
            yield from super()._handle_event(event)
        if isinstance(event, events.DataReceived):
            self._bound(event)
        if self._has_http2:
            yield from self._settle()
        if not self._looks and self._has_to_look():
            self._looks = True
            yield OwnWakeup(self, LOOK_EVERY_S)

    def _start(self) -> Commands:
        client = self.context.client
        if client.alpn == b"h2":
            self._worker = StrictHttp2Server(self.context.fork(), self._guard)
            self._has_http2 = self._guard.is_multiplexed = True
            yield AwaitWord(self)
        else:
            self._worker = StrictHttp1Server(self.context.fork(), self.mode, self._guard)
        self._guard.carried_by(self)
        self.connections.setdefault(client, self._worker)

    def _woken(self, command: OwnWakeup) -> Commands:
        match command:
            case AwaitWord():
                yield AwaitWord(self)
                if self._guard.takes_leave() and self._worker is not None and not self.streams:
                    yield from self.event_to_child(self._worker, Farewell(0))
            case AwaitRoom():
                self._awaited.discard(command.connection)
            case _:
                self._looks = False
                yield from self._look()

    def _has_to_look(self) -> bool:
        """Whether something here may come to wait for too long."""
        worker = self._worker
        if worker is not None and worker.head_since_ms is not None:
            return True
        if isinstance(worker, StrictHttp2Server):
            return bool(self.streams) or worker.lingers
        return self._guard.has_open(self)

    def _look(self) -> Commands:
        """End what waits for too long; nothing, once another layer carries the requests."""
        if not self._guard.is_carried_by(self):
            return
        self._guard.overdue({one: self._waits(stream) for one, stream in self.streams.items()})
        yield from self._end_broken()
        yield from self._look_at_head()
        if isinstance(self._worker, StrictHttp2Server):
            yield from self.event_to_child(self._worker, ReleaseCredit(0))

    def _look_at_head(self) -> Commands:
        worker = self._worker
        since = None if worker is None else worker.head_since_ms
        if worker is None or since is None:
            return
        if self._guard.now_monotonic_ms() - since >= self._guard.head_ms:
            yield from self.event_to_child(worker, HeadOverdue(0))

    def _bound(self, event: events.DataReceived) -> None:
        """Give up on a side that has sent too much of what nothing can be made of yet, and on a
        server that makes us answer (PING, SETTINGS) and does not read the answers."""
        side = self._worker
        if event.connection != self.context.client:
            if self._guard.unsent_bytes(event.connection) > MAX_UNSENT_BYTES:
                self._guard.flooded(by_worker=False)
            upstream = self._upstreams.get(event.connection)
            side = upstream.http if upstream is not None else None  # type: ignore[assignment]
        unparsed = len(side.buf) if isinstance(side, Http1Connection) else 0
        if unparsed > MAX_UNPARSED_BYTES or len(self.streams) > MAX_TURNS:
            self._guard.flooded(by_worker=event.connection == self.context.client)

    # --- between the sides ----------------------------------------------------------------------

    def make_stream(self, stream_id: int) -> Commands:
        self.streams[stream_id] = JudgedStream(self.context.fork(), stream_id, self._guard)
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def event_to_child(self, child: layer.Layer, event: events.Event) -> Commands:
        if isinstance(event, ResponseProtocolError) and child is self._worker:
            return self._tell_and_drop(event)
        return super().event_to_child(child, event)

    def _tell_and_drop(self, event: ResponseProtocolError) -> Commands:
        if self._worker is not None:
            yield from super().event_to_child(self._worker, event)
        yield from self._drop(event.stream_id)

    def _drop(self, stream_id: int) -> Commands:
        """A stream is over for the worker: so it is for its server."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None and self._guard.is_multiplexed:
            stream.is_over = True
        conn = None if stream is None else self.connections.get(stream.context.server)
        if conn is not None:
            code = ErrorCode.CANCEL
            yield from self.event_to_child(conn, RequestProtocolError(stream_id, "over", code))

    def _end(self, stream_id: int, code: ErrorCode) -> Commands:
        """End a stream from outside."""
        if stream_id in self.streams and self._worker is not None:
            self.streams[stream_id].is_over = True
            ended = ResponseProtocolError(stream_id, "broken off", code)
            yield from self.event_to_child(self._worker, ended)

    def _end_broken(self) -> Commands:
        """End what the guard broke off. Nothing new goes to a server of HTTP/2 that left a request
        without an answer."""
        for turn in self._guard.take_broken():
            stream = self.streams.get(turn.stream_id)
            if turn.is_unanswered and stream is not None:
                self._upstreams[stream.context.server].retire()
            yield from self._end(turn.stream_id, ErrorCode.KILL)

    def _settle(self) -> Commands:
        """After every event of a connection with HTTP/2: end what the guard broke off, hand credit
        back, let waiting streams have a connection, and forget what is over."""
        yield from self._end_broken()
        if isinstance(self._worker, StrictHttp2Server):
            yield from self._release(self.context.client, self._worker.held_streams)
        for connection, upstream in list(self._upstreams.items()):
            if isinstance(upstream.http, JudgedHttp2Client):
                yield from self._release(connection, upstream.http.held_streams)
        yield from self._ask_again()
        if self._guard.is_multiplexed:
            self._forget_ended()

    # --- credit ---------------------------------------------------------------------------------

    def _release(self, connection: Connection, held: list[int]) -> Commands:
        """Hand back the credit of streams whose bytes have gone on."""
        if not held:
            return
        released = []
        for own_id in held:
            blocked_by = self._blocked_by(connection, own_id)
            if blocked_by is None:
                released.append(own_id)
            elif self._guard.unsent_bytes(blocked_by) and blocked_by not in self._awaited:
                self._awaited.add(blocked_by)
                yield AwaitRoom(self, blocked_by)
        if released:
            event = ReleaseCredit(0, tuple(released))
            yield from self.event_to_child(self.connections[connection], event)

    def _blocked_by(self, connection: Connection, own_id: int) -> Connection | None:
        """The side that does not take what came in on a stream of `connection`, or None."""
        stream_id = own_id
        if connection != self.context.client:
            http = self._upstreams[connection].http
            known = http.their_stream_id if isinstance(http, JudgedHttp2Client) else {}
            stream_id = known.get(own_id, 0)
        stream = self.streams.get(stream_id)
        if stream is None:
            return None
        if stream.waits:
            return connection
        to = stream.context.server if connection == self.context.client else self.context.client
        if self.waiting_bytes(to, stream_id) + self._guard.unsent_bytes(to) > MAX_WAITING_BYTES:
            return to
        return None

    def waiting_bytes(self, to: Connection, stream_id: int) -> int:
        """What of a stream waits for the window of one side."""
        if to == self.context.client:
            worker = self._worker
            if not isinstance(worker, StrictHttp2Server):
                return 0
            return worker.h2_conn.waiting_bytes(stream_id)
        upstream = self._upstreams.get(to)
        http = upstream.http if upstream is not None else None
        return http.waiting_bytes(stream_id) if isinstance(http, JudgedHttp2Client) else 0

    def is_backed_up(self, source: Connection) -> bool:
        """Whether one side, which speaks HTTP/1, is to wait, because the window of the other one
        has no room for what it sends, or nothing more is made of it."""
        if source == self.context.client and self._has_discarded_enough:
            return True
        return self._has_http2 and any(
            self.waiting_bytes(to, stream.stream_id) > MAX_WAITING_BYTES
            for stream, to in self._fed_by(source)
        )

    @property
    def _has_discarded_enough(self) -> bool:
        return isinstance(self._worker, StrictHttp1Server) and self._worker.has_discarded_enough

    def _fed_by(self, source: Connection) -> Iterator[tuple[JudgedStream, Connection]]:
        """The streams that an HTTP/1 side feeds, and where to."""
        for stream in self.streams.values():
            if source == self.context.client:
                if isinstance(self._worker, StrictHttp1Server):
                    yield stream, stream.context.server
            elif stream.context.server == source:
                upstream = self._upstreams.get(source)
                if upstream is not None and isinstance(upstream.http, StrictHttp1Client):
                    yield stream, self.context.client

    def _waits(self, stream: JudgedStream) -> Waits:
        """What of a stream each side has to take. A connection of HTTP/1 is its alone."""
        client, server = self.context.client, stream.context.server
        upstream = self._upstreams.get(server)
        sides = (self._worker, None if upstream is None else upstream.http)
        in_http2 = [side.h2_conn for side in sides if isinstance(side, CreditedHttp2)]
        windows = [self.waiting_bytes(to, stream.stream_id) for to in (client, server)]
        unsent = [self._guard.unsent_bytes(to) for to in (client, server)]
        alone = [
            self._guard.untaken_bytes(to)
            for to, side in zip((client, server), sides, strict=True)
            if isinstance(side, Http1Connection)
        ]
        worker = self._worker
        withheld = 0
        if isinstance(worker, StrictHttp2Server):
            withheld = worker.withheld_bytes(stream.stream_id)
        return Waits(
            for_worker=windows[0] + unsent[0],
            for_server=windows[1] + unsent[1] + withheld,
            own=sum(windows) + sum(alone),
            in_windows=sum(windows),
            pings=sum(one.pings for one in in_http2),
        )

    def _forget_ended(self) -> None:
        open_streams = set(self.streams)
        self._guard.keep_turns(open_streams)
        if isinstance(self._worker, StrictHttp2Server):
            self._worker.keep(open_streams)
