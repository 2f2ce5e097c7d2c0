"""The connections to servers behind one worker's connection: which are opened, shared, and closed.

A server has one HTTP/2 connection or a bounded number of HTTP/1 ones. A stream uses one that is
there only as the guard allows. One that finds no room waits for a place; an HTTP/1 worker, which
may go from server to server, keeps a bounded number of idle ones and gives them up for new ones.
"""

from typing import Final

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpLayer,
    HTTPMode,
    RegisterHttpConnection,
)

from palyra_egress.proxy.guard.http_guard import HttpGuard
from palyra_egress.proxy.http.h2_connection import Commands
from palyra_egress.proxy.http.http_stream import JudgedStream
from palyra_egress.proxy.http.upstream_layers import JudgedUpstream
from palyra_egress.proxy.tls.tls_bounds import BoundedServerTls

MAX_UPSTREAMS: Final = 16  # of one worker's connection to a server that speaks HTTP/1
MAX_IDLE_UPSTREAMS: Final = 16  # of one worker's connection that speaks HTTP/1, whatever the server


class UpstreamPool(HttpLayer):
    """The servers' part of the HTTP of one worker's connection."""

    streams: dict[int, JudgedStream]  # type: ignore[assignment]

    def __init__(self, context: Context, mode: HTTPMode, guard: HttpGuard) -> None:
        super().__init__(context, mode)
        self._guard = guard
        self._upstreams: dict[Connection, JudgedUpstream] = {}
        self._queue: list[GetHttpConnection] = []
        self._has_http2 = False

    def _ask_again(self) -> Commands:
        """Let every stream that waits ask once more."""
        waiting, self._queue = self._queue, []
        for command in waiting:
            yield from self._get_again(command)
        self._guard.hand_places_on()

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> Commands:
        stream_id = self._asks(event).stream_id
        if event.via is not None or event.transport_protocol != "tcp":
            yield from self._reply(event, (None, "not carried"))
            return
        held = 0
        for connection, upstream in list(self._upstreams.items()):
            if not event.connection_spec_matches(connection):
                continue
            if connection in self.waiting_for_establishment:
                if self._guard.may_share(stream_id, connection):
                    self.waiting_for_establishment[connection].append(event)
                    return
                held += 1
            elif upstream.is_free and self._guard.may_share(stream_id, connection):
                self._upstreams[connection] = self._upstreams.pop(connection)
                yield from self._reply(event, (connection, None))
                return
            held += connection.connected
        if held >= MAX_UPSTREAMS and (spare := self._spare(event)) is not None:
            yield commands.CloseConnection(spare)
            held -= 1
        is_further = None if held >= MAX_UPSTREAMS else (yield from self._find_place(held))
        if is_further is None:
            self._queue.append(event)
        else:
            yield from self._open(event, stream_id, is_further=is_further)

    def _find_place(self, held: int) -> layer.CommandGenerator[bool | None]:
        """Whether one more connection is a further one, whose place is then taken; None: it has to
        wait. `held` are those to the same server. An HTTP/1 worker needs one at a time and never
        waits: those that it has left idle make room."""
        if self._guard.is_multiplexed:
            if not held:
                return False
            return True if self._guard.may_open_further(waits=True) else None
        yield from self._close_idle(keep=MAX_IDLE_UPSTREAMS - 1)
        if not self._idle():
            return False
        if self._guard.may_open_further(waits=False):
            return True
        yield from self._close_idle(keep=0)
        return False

    def _close_idle(self, *, keep: int) -> Commands:
        """Close connections that carry nothing, the least recently used first."""
        idle = self._idle()
        for connection in idle[: max(0, len(idle) - keep)]:
            yield commands.CloseConnection(connection)

    def _idle(self) -> list[Connection]:
        """The connections that carry nothing, in the order of their last use."""
        known = self._upstreams.items()
        return [one for one, upstream in known if one.connected and upstream.is_spare]

    def _spare(self, event: GetHttpConnection) -> Connection | None:
        """A connection to the same server that carries nothing, and that who asks may not use."""
        known = (one for one in self._upstreams if event.connection_spec_matches(one))
        return next((one for one in known if self._upstreams[one].is_spare), None)

    def _open(self, event: GetHttpConnection, stream_id: int, *, is_further: bool) -> Commands:
        """Open one more connection for this stream."""
        self._forget_closed()
        context = self.context.fork()
        context.server = Server(address=event.address, transport_protocol="tcp")
        stack = tunnel.LayerStack()
        if event.tls:
            context.server.sni = event.address[0]
            stack /= BoundedServerTls(context, self._guard)
        upstream = JudgedUpstream(context, self._guard)
        stack /= upstream
        self._guard.opens(stream_id, context.server, is_further=is_further)
        self._upstreams[context.server] = upstream
        self.connections[context.server] = stack[0]
        self.waiting_for_establishment[context.server].append(event)
        yield from self.event_to_child(stack[0], events.Start())

    def register_connection(self, command: RegisterHttpConnection) -> Commands:
        connection = command.connection
        waiting = self.waiting_for_establishment.pop(connection)
        if command.err and self._guard.speaks_only_http2(connection):
            for event in waiting:
                yield from self._get_again(event)
            return
        if command.err:
            for event in waiting:
                yield from self._reply(event, (None, command.err))
            return
        if connection.alpn == b"h2":
            self._has_http2 = True
        yield from self._reply(waiting[0], (connection, None))
        for event in waiting[1:]:
            yield from self._get_again(event)

    def _get_again(self, event: GetHttpConnection) -> Commands:
        """A stream that waited asks again, if it is still there."""
        stream = self._asks(event)
        if self.streams.get(stream.stream_id) is stream:
            yield from self.get_connection(event)
        else:
            del self.command_sources[event]

    def _asks(self, event: GetHttpConnection) -> JudgedStream:
        """The stream that asked for a connection."""
        stream = self.command_sources[event]
        if not isinstance(stream, JudgedStream):
            raise TypeError("only a stream asks for a connection")
        return stream

    def _reply(
        self, event: GetHttpConnection, reply: tuple[Connection, None] | tuple[None, str]
    ) -> Commands:
        stream = self.command_sources.pop(event)
        yield from self.event_to_child(stream, GetHttpConnectionCompleted(event, reply))

    def _forget_closed(self) -> None:
        """Forget upstream connections that are closed and that no stream uses."""
        in_use = {stream.context.server for stream in self.streams.values()}
        for connection in list(self._upstreams):
            is_waited_for = connection in self.waiting_for_establishment
            if is_waited_for or connection in in_use:
                continue
            if connection.state is ConnectionState.CLOSED:
                del self._upstreams[connection]
                self.connections.pop(connection, None)
                self._guard.forget_upstream(connection)
