"""One worker connection's guard: what happens at each of mitmproxy's hooks.

The handler calls the guard itself, after any addon chain and outside the code that swallows addon
exceptions; whatever the guard raises makes the handler abort the connection. One connection carries
one identity and at most one tunnel; requests come one at a time in HTTP/1 and side by side in
HTTP/2, each with a turn of its own. Nothing is dialled without the grant of an open exchange, and
only at addresses that were pinned for it.
Invariants: no grant, no byte upstream; a change after the verdict breaks the seal; the identity is
asked for again on every request.
"""

from dataclasses import replace
from functools import partial
from typing import Final

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.connection import Connection as NetworkConnection
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode

from palyra_egress.proxy.doors.door_layer import DoorLayer
from palyra_egress.proxy.guard.exchange import (
    Exchange,
    Seal,
    body_may_follow,
    forwardable,
    is_as_read,
    never_forwarded,
)
from palyra_egress.proxy.guard.guard_parts import Refused
from palyra_egress.proxy.guard.guard_sockets import SocketGuard
from palyra_egress.proxy.guard.leak_guard import BodyTaker
from palyra_egress.proxy.guard.receipt import is_own_target
from palyra_egress.proxy.guard.turn import Turn, answer_to
from palyra_egress.proxy.http.canonical import (
    Target,
    TargetRefused,
    connect_target,
    egress_request,
    plain_target,
    stream_target,
    tunnelled_target,
)
from palyra_egress.proxy.http.credential_headers import drop_bound
from palyra_egress.proxy.http.denial import Answer
from palyra_egress.proxy.http.http_layer import JudgedHttpLayer
from palyra_egress.proxy.http.layers import RefusedLayer
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_egress.proxy.http.trace_headers import TraceHeaders, drop_trace_headers
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.own_name import answer_own
from palyra_egress.proxy.tls.tls_bounds import BoundedClientTls
from palyra_egress.proxy.tunnels.tunnel_layer import PassedOnLayer
from palyra_egress.proxy.websocket.websocket_handshake import WebSocketOffer
from palyra_egress.reasons import Reason
from palyra_egress.request import RequestKind

_TLS_HANDSHAKE: Final = b"\x16\x03"


class ConnectionGuard(SocketGuard):
    """The guard of one client connection. Method names are those of mitmproxy's hooks."""

    # --- the connection -------------------------------------------------------------------------

    async def client_connected(self, client: Client) -> None:
        if client.transport_protocol != "tcp":
            raise Refused(Reason.PROTOCOL_NOT_SUPPORTED)
        if not self.core.connections.admit(self._connection, self.now_monotonic_ms()):
            raise Refused(Reason.TOO_MANY_CONNECTIONS)

    async def client_disconnected(self, _client: Client) -> None:
        outcome = self.outcome("client_closed")
        self._finish_all(outcome)
        self.tunnel_over(outcome)

    async def next_layer(self, next_layer: layer.NextLayer) -> None:
        """Choose the protocol layer; anything but HTTP, plain or inside inspected TLS, and TLS in a
        tunnel that is passed on, is refused. Overrides whatever an addon chose."""
        next_layer.layer = None
        context = next_layer.context
        data: bytes = next_layer.data_client()  # type: ignore[no-untyped-call]
        if len(data) < 2:
            return
        parent = context.layers[-1] if context.layers else None
        starts_tls = data.startswith(_TLS_HANDSHAKE[: len(data)])
        match parent:
            case modes.HttpProxy() if not starts_tls:
                next_layer.layer = JudgedHttpLayer(context, HTTPMode.regular, self)
            case layers.ClientTLSLayer() if not starts_tls and data[:1].isalpha():
                next_layer.layer = JudgedHttpLayer(context, HTTPMode.transparent, self)
            case DoorLayer() if not await self._settle_scheme(starts_tls=starts_tls):
                next_layer.layer = RefusedLayer(context)
            case DoorLayer() if not starts_tls and data[:1].isalpha():
                next_layer.layer = JudgedHttpLayer(context, HTTPMode.transparent, self)
            case layers.http.HttpStream() | DoorLayer() if self._passes_on and starts_tls:
                next_layer.layer = PassedOnLayer(context, self)
            case layers.http.HttpStream() | DoorLayer() if self._tunnel and starts_tls:
                server_tls = layers.ServerTLSLayer(context)
                server_tls.child_layer = BoundedClientTls(context, self)
                next_layer.layer = server_tls
            case _:
                self._refuse_protocol()
                next_layer.layer = RefusedLayer(context)

    # --- CONNECT --------------------------------------------------------------------------------

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        turn = self._turn_of(flow)
        judgement = await self._judge_connect(flow, turn)
        if not judgement.allowed:
            await self.core.slow_down(judgement, self.requester)
            turn.give(flow, answer_to(judgement, close=judgement.close))
            return
        flow.response = None

    async def _judge_connect(self, flow: http.HTTPFlow, turn: Turn) -> Judgement:
        head = self._take_head(turn)
        hosts = flow.request.headers.get_all("host")
        if (reason := self._identify(flow.request.headers)) is not None:
            return self._refuse_caller(reason, RequestKind.CONNECT, head, hosts)
        if self._tunnel is not None or self.requester is None:
            raise Refused(Reason.PROTOCOL_NOT_SUPPORTED)
        if body_may_follow(flow.request):  # RFC 9110 section 9.3.6: CONNECT has no content
            return self._refuse_unjudged(Reason.REQUEST_MALFORMED)
        try:
            target = connect_target(head, hosts)
        except TargetRefused as refused:
            return self._refuse_target(refused, RequestKind.CONNECT)
        request = egress_request(RequestKind.CONNECT, target, self.requester)
        if (leak := self._leaks.look(request, None, has_body=False).refusal) is not None:
            return leak
        if (full := self._begin_opening(request)) is not None:
            return full
        judgement = await self.core.judge(request, None, None, self._connection)
        if not judgement.allowed:
            self._end_opening()
        else:
            self._open_tunnel(request, judgement)
            flow.request.data.host, flow.request.data.port = target.host, target.port
        return judgement

    # --- requests -------------------------------------------------------------------------------

    def begin(self, turn: Turn) -> None:
        """A request head was read, and is about to be asked about."""
        self.idle_clock.begin_again()
        self._turns.begin(turn)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        turn = self._turn_of(flow)
        if flow.error is not None:  # mitmproxy refused it already; audit that and answer
            turn.head = None
            turn.hold(self.refuse_head(Reason.REQUEST_MALFORMED))
            return
        try:
            judged = await self._judge_request(flow, turn)
        except TargetRefused as refused:
            judged = self._refuse_target(refused, RequestKind.REQUEST)
        if isinstance(judged, Answer):
            turn.give(flow, judged)
        elif not judged.allowed:
            if judged.close and self.is_multiplexed:
                self._end_all_but(turn, judged.reason)
            await self.core.slow_down(judged, self.requester)
            turn.give(flow, answer_to(judged, close=judged.close or turn.has_body))

    async def _judge_request(self, flow: http.HTTPFlow, turn: Turn) -> Judgement | Answer:
        head = self._take_head(turn)
        headers = flow.request.headers
        hosts = headers.get_all("host")
        if self._tunnel is not None:
            self._tunnel.has_hello = True  # in plain HTTP a whole head is what was waited for
            self._end_opening()
            tunnel = self._tunnel.request
            target = self._target_inside(head, hosts, turn)
            requester = tunnel.requester
            known: tuple[str, ...] | None = self._tunnel.judgement.addresses
        else:
            if is_own_target(head):
                parts, self._was_heard = self._parts, True
                return answer_own(
                    self.core, parts.receipts, head, headers, self._identify, self.refuse_head
                )
            if (reason := self._identify(headers)) is not None:
                return self._refuse_caller(reason, RequestKind.REQUEST, head, hosts)
            if self.requester is None:
                raise Refused(Reason.INTERNAL)
            target = plain_target(head, hosts)
            requester, known = self.requester, self._open_peer(target)
        version = b"HTTP/1." if turn.authority is None else b"HTTP/2.0"
        if not is_as_read(flow.request, target, version):
            raise Refused(Reason.INTERNAL)
        offer = self._offer(flow.request)
        target = replace(target, websocket=isinstance(offer, WebSocketOffer))
        request = egress_request(RequestKind.REQUEST, target, requester)
        looked = self._leaks.look(request, flow.request, turn.has_body)
        if looked.refusal is not None:
            return looked.refusal
        if isinstance(offer, Reason):
            return self.core.refuse(request, offer, self._connection)
        if (reason := never_forwarded(headers)) is not None:
            return self.core.refuse(request, reason, self._connection)
        body_bytes = int(headers.get("content-length", "0"))
        judgement = await self.core.judge(
            request, known, body_bytes, self._connection, headers.get_all
        )
        if judgement.allowed:
            self._grant(flow, turn, target, judgement, looked.body, offer)
        return judgement

    def _target_inside(self, head: RequestHead, hosts: list[str], turn: Turn) -> Target:
        """The target of a request inside the tunnel."""
        if self._tunnel is None:
            raise Refused(Reason.INTERNAL)
        tunnel = self._tunnel.request
        if turn.authority is None:
            return tunnelled_target(head, hosts, tunnel.host, tunnel.port, tunnel.scheme)
        return stream_target(head, turn.authority, hosts, tunnel.host, tunnel.port)

    def _grant(
        self,
        flow: http.HTTPFlow,
        turn: Turn,
        target: Target,
        judgement: Judgement,
        look_through: BodyTaker | None,
        offer: WebSocketOffer | None,
    ) -> None:
        """Seal the request in the form in which it will leave, and meter both bodies."""
        wants_trailers = "trailers" in flow.request.headers.get("te", "").lower()
        forwardable(flow.request, target)
        drop_bound(flow.request.headers, judgement.injected)
        if self._parts.trace_headers is TraceHeaders.DROP:
            drop_trace_headers(flow.request.headers)
        socket = self._prepare_socket(flow.request, offer)
        exchange = Exchange(
            flow_id=flow.id,
            target=target,
            judgement=judgement,
            seal=Seal.of(flow.request),
            started_monotonic_ms=self.core.clocks.now_monotonic_ms(),
            spend=partial(self.core.spend, judgement),
            cut=partial(self._break_off, turn),
            injected=judgement.injected,
            look_through=look_through,
            wants_trailers=wants_trailers,
            promises_end=not self.is_multiplexed or "content-length" in flow.request.headers,
            socket=socket,
        )
        turn.exchange = exchange
        turn.decision_id = judgement.decision_id
        flow.response = None
        flow.request.stream = exchange.meter_request

    async def request(self, flow: http.HTTPFlow) -> None:
        """The body is complete (or was streamed): what leaves must still be what was granted."""
        turn = self._going_on(flow)
        if turn is None or turn.is_answered:
            return
        exchange = turn.exchange
        if exchange is None or exchange.ended:
            raise Refused(Reason.INTERNAL)
        if not exchange.holds(flow.request) or flow.server_conn.via is not None:
            raise Refused(Reason.INTERNAL)
        exchange.has_whole_request = True

    def _going_on(self, flow: http.HTTPFlow) -> Turn | None:
        """The turn of a flow; None once it is over, and the flow with it. In HTTP/1, where only a
        server that answers before it was asked ends a turn so early, the connection ends."""
        if not self.is_multiplexed:
            turn = self._turn_of(flow)
            if turn.is_finished:
                raise Refused(Reason.UPSTREAM_PROTOCOL, audited=True)
            return turn
        found = self._turns.of_flow(flow)
        if found is None or found.is_finished:
            if flow.killable:
                flow.kill()  # type: ignore[no-untyped-call]
            return None
        return found

    @property
    def awaits_upstream(self) -> bool:
        """Whether a granted request waits for its upstream: what the worker sends meanwhile would
        pile up in memory, so nothing more is read of it. In HTTP/2 its window bounds that."""
        return not self.is_multiplexed and any(
            not exchange.has_left for _, exchange in self._turns.open()
        )

    def upstream_overdue(self) -> None:
        """The upstream was not ready in time."""
        self._finish_all(Reason.UPSTREAM_TIMEOUT.value)
        self._connection.abort(Reason.UPSTREAM_TIMEOUT)

    def flooded(self, *, by_worker: bool) -> None:
        reason = Reason.REQUEST_MALFORMED if by_worker else Reason.UPSTREAM_PROTOCOL
        if by_worker:
            self._refuse_unjudged(reason)
        self._finish_all(reason.value)
        self._connection.abort(reason)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        turn = self._going_on(flow)
        if turn is None or turn.is_answered:
            return
        exchange = turn.exchange
        if exchange is None or exchange.ended or flow.response is None:
            raise Refused(Reason.INTERNAL)
        if (problem := exchange.admit(flow.request, flow.response)) is not None:
            turn.fail(flow, problem)

    async def response(self, flow: http.HTTPFlow) -> None:
        turn = self._going_on(flow)
        if turn is None or turn.is_answered or turn.exchange is None or flow.response is None:
            return
        if flow.response.status_code == 101:  # accepted, and from now on a WebSocket
            return
        self._return_trailers(turn.exchange, flow.response)
        self._finish(turn, "complete")

    async def error(self, flow: http.HTTPFlow) -> None:
        turn = self._turns.of_flow(flow)
        if turn is not None:
            failure = turn.upstream_failure
            self._finish(turn, failure.value if failure is not None else "aborted")

    # --- answers (called by the strict servers) ---------------------------------------------------

    def refuse_head(self, reason: Reason) -> Answer:
        return answer_to(self._refuse_unjudged(reason))

    def answer_for(self, stream_id: int, reason: Reason | None) -> Answer | None:
        turn = self._turns.of_stream(stream_id)
        if turn is None:
            return None
        if reason is not None and turn.head is not None:  # refused before any hook saw it
            turn.head = None
            return self.refuse_head(reason)
        return turn.take(reason)

    def ends_connection(self, stream_id: int) -> bool:
        """Whether nothing goes on behind the answer on this stream."""
        turn = self._turns.of_stream(stream_id)
        return turn is not None and turn.ends_connection

    def keep_turns(self, stream_ids: set[int]) -> None:
        """The streams that are open; what went on in others is over."""
        for turn in self._turns.keep(stream_ids):
            self._finish(turn, "aborted")

    def unsent_bytes(self, connection: NetworkConnection) -> int:
        return self._connection.unsent_bytes(connection)

    def untaken_bytes(self, connection: NetworkConnection) -> int:
        return self._connection.untaken_bytes(connection)

    def _end_all_but(self, turn: Turn, reason: Reason) -> None:
        """A threat: every other stream of this connection ends now, and the servers behind it with
        them; the answer is the last thing that is sent."""
        turn.ends_connection = True
        for other, _ in self._turns.open():
            self._finish(other, reason.value)
        self._connection.reset_upstreams()
        self._connection.after(
            self._parts.deadlines.last_answer_s, partial(self._connection.abort, reason)
        )

    # --- helpers --------------------------------------------------------------------------------

    def _turn_of(self, flow: http.HTTPFlow) -> Turn:
        turn = self._turns.of_flow(flow)
        if turn is None:
            raise Refused(Reason.INTERNAL)
        return turn

    def _take_head(self, turn: Turn) -> RequestHead:
        head = turn.take_head()
        if head is None:
            raise Refused(Reason.INTERNAL)
        return head

    def _refuse_caller(
        self, reason: Reason, kind: RequestKind, head: RequestHead, hosts: list[str]
    ) -> Judgement:
        """A caller that may not speak. Another worker's credentials on this worker's connection
        cost this worker what the policy says."""
        if reason is not Reason.FOREIGN_CREDENTIALS or self.requester is None:
            return self._refuse_unjudged(reason)
        read = connect_target if kind is RequestKind.CONNECT else plain_target
        try:
            request = egress_request(kind, read(head, hosts), self.requester)
        except TargetRefused:
            return self._refuse_unjudged(reason)
        return self.core.refuse(self._leaks.redacted(request), reason, self._connection)

    def _refuse_target(self, refused: TargetRefused, kind: RequestKind) -> Judgement:
        """A request whose target does not fit: inside a tunnel the tunnel's request stands for it,
        elsewhere what its request line named, so that a mismatch costs what the policy says."""
        if self._tunnel is not None:
            return self.core.refuse(self._tunnel.request, refused.reason, self._connection)
        if refused.target is None or self.requester is None:
            return self._refuse_unjudged(refused.reason)
        request = self._leaks.redacted(egress_request(kind, refused.target, self.requester))
        return self.core.refuse(request, refused.reason, self._connection)
