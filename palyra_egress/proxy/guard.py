"""One worker connection's guard: what happens at each of mitmproxy's hooks.

The handler calls the guard itself, after any addon chain and outside the code that swallows addon
exceptions; whatever the guard raises makes the handler abort the connection. One connection carries
one identity and at most one tunnel, and one request at a time. Nothing is dialled without the
grant of the current exchange, and only at addresses that were pinned for it.
Invariants: no grant, no byte upstream; a change after the verdict breaks the seal; the identity is
asked for again on every request.
"""

from functools import partial
from typing import Final

from mitmproxy import http
from mitmproxy.connection import Client, Server
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode

from palyra_egress.proxy.answers import answer_to
from palyra_egress.proxy.canonical import (
    Target,
    TargetRefused,
    connect_target,
    egress_request,
    plain_target,
    tunnelled_target,
)
from palyra_egress.proxy.core import Judgement
from palyra_egress.proxy.credential_headers import drop_bound
from palyra_egress.proxy.denial import Answer
from palyra_egress.proxy.door_layer import DoorLayer
from palyra_egress.proxy.exchange import (
    Exchange,
    Seal,
    body_may_follow,
    forwardable,
    is_as_read,
    never_forwarded,
)
from palyra_egress.proxy.guard_doors import DoorGuard
from palyra_egress.proxy.guard_parts import Connection, GuardParts, Pinned, Refused
from palyra_egress.proxy.layers import BoundedClientTls, JudgedHttpLayer, RefusedLayer
from palyra_egress.proxy.own_name import answer_own
from palyra_egress.proxy.receipt import is_own_target
from palyra_egress.proxy.request_head import RequestHead
from palyra_egress.proxy.review import judge_again
from palyra_egress.proxy.tunnel_layer import PassedOnLayer
from palyra_egress.reasons import Reason
from palyra_egress.request import RequestKind

_TLS_HANDSHAKE: Final = b"\x16\x03"


class ConnectionGuard(DoorGuard):
    """The guard of one client connection. Method names are those of mitmproxy's hooks."""

    def __init__(self, parts: GuardParts, connection: Connection) -> None:
        super().__init__(parts, connection)
        self._decision_id = ""
        self._finished_flow_id = ""

    # --- the connection -------------------------------------------------------------------------

    async def client_connected(self, client: Client) -> None:
        if client.transport_protocol != "tcp":
            raise Refused(Reason.PROTOCOL_NOT_SUPPORTED)
        if not self.core.connections.admit(self._connection):
            raise Refused(Reason.TOO_MANY_CONNECTIONS)

    async def client_disconnected(self, _client: Client) -> None:
        self._finish("client_closed")
        self.tunnel_over("client_closed")
        self.core.connections.forget(self._connection)

    async def next_layer(self, next_layer: layer.NextLayer) -> None:
        """Choose the protocol layer; anything but HTTP/1.1, plain or inside inspected TLS, and TLS
        in a tunnel that is passed on, is refused. Overrides whatever an addon chose."""
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
                server_tls.child_layer = BoundedClientTls(context)
                next_layer.layer = server_tls
            case _:
                self._refuse_protocol()
                next_layer.layer = RefusedLayer(context)

    # --- CONNECT --------------------------------------------------------------------------------

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        judgement = await self._judge_connect(flow)
        if not judgement.allowed:
            self._answers.give(flow, answer_to(judgement, close=judgement.close))
            return
        flow.response = None

    async def _judge_connect(self, flow: http.HTTPFlow) -> Judgement:
        head = self._take_head()
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
        if (leak := self._leaks.refusal(request, None)) is not None:
            return leak
        judgement = await self.core.judge(request, None, None, self._connection)
        if judgement.allowed:
            self._open_tunnel(request, judgement)
            flow.request.data.host, flow.request.data.port = target.host, target.port
        return judgement

    # --- requests -------------------------------------------------------------------------------

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        self._exchange = None
        self._answers.begin()
        self._decision_id = ""
        if flow.error is not None:  # mitmproxy refused it already; audit that and answer
            self.head = None
            self._answers.hold(self.refuse_head(Reason.REQUEST_MALFORMED))
            return
        try:
            judged = await self._judge_request(flow)
        except TargetRefused as refused:
            judged = self._refuse_target(refused, RequestKind.REQUEST)
        if isinstance(judged, Answer):
            self._answers.give(flow, judged)
        elif not judged.allowed:
            has_body = body_may_follow(flow.request)
            self._answers.give(flow, answer_to(judged, close=judged.close or has_body))

    async def _judge_request(self, flow: http.HTTPFlow) -> Judgement | Answer:
        head = self._take_head()
        headers = flow.request.headers
        hosts = headers.get_all("host")
        if self._tunnel is not None:
            self._tunnel.has_hello = True  # in plain HTTP a whole head is what was waited for
            tunnel = self._tunnel.request
            target = tunnelled_target(head, hosts, tunnel.host, tunnel.port, tunnel.scheme)
            requester = tunnel.requester
            known: tuple[str, ...] | None = self._tunnel.judgement.addresses
        else:
            if is_own_target(head):
                parts = self._parts
                return answer_own(
                    self.core, parts.receipts, head, headers, self._identify, self.refuse_head
                )
            if (reason := self._identify(headers)) is not None:
                return self._refuse_caller(reason, RequestKind.REQUEST, head, hosts)
            if self.requester is None:
                raise Refused(Reason.INTERNAL)
            target = plain_target(head, hosts)
            requester, known = self.requester, self._open_peer(target)
        if not is_as_read(flow.request, target):
            raise Refused(Reason.INTERNAL)
        request = egress_request(RequestKind.REQUEST, target, requester)
        if (leak := self._leaks.refusal(request, flow.request)) is not None:
            return leak
        if (reason := never_forwarded(headers)) is not None:
            return self.core.refuse(request, reason, self._connection)
        body_bytes = int(headers.get("content-length", "0"))
        judgement = await self.core.judge(
            request, known, body_bytes, self._connection, headers.get_all
        )
        if judgement.allowed:
            self._grant(flow, target, judgement)
        return judgement

    def _grant(self, flow: http.HTTPFlow, target: Target, judgement: Judgement) -> None:
        """Seal the request in the form in which it will leave, and meter both bodies."""
        forwardable(flow.request, target)
        drop_bound(flow.request.headers, judgement.injected)
        exchange = Exchange(
            flow_id=flow.id,
            target=target,
            judgement=judgement,
            seal=Seal.of(flow.request),
            started_monotonic_ms=self.core.clocks.now_monotonic_ms(),
            spend=partial(self.core.spend, judgement),
            cut=self._cut,
            injected=judgement.injected,
            look_through=self._leaks.body,
        )
        self._exchange = exchange
        self._decision_id = judgement.decision_id
        flow.response = None
        flow.request.stream = exchange.meter_request

    async def request(self, flow: http.HTTPFlow) -> None:
        """The body is complete (or was streamed): what leaves must still be what was granted."""
        if self._answers.has_answered(flow):
            return
        exchange = self._exchange
        if exchange is None and flow.id == self._finished_flow_id:
            raise Refused(Reason.UPSTREAM_PROTOCOL, audited=True)  # answered before it was asked
        if exchange is None or exchange.flow_id != flow.id:
            raise Refused(Reason.INTERNAL)
        if not exchange.holds(flow.request) or flow.server_conn.via is not None:
            raise Refused(Reason.INTERNAL)

    def leaving(self, request: http.Request, server: object) -> http.Request:
        """Asked by the HTTP layer when a head is about to be written to `server`: what is written,
        which is the granted request with its credentials. Raises Refused."""
        exchange = self._exchange
        if exchange is None or not exchange.holds(request):
            raise Refused(Reason.INTERNAL)
        leaves = exchange.leaving(request, server)
        if leaves is None:
            raise Refused(Reason.UPSTREAM_TLS)
        exchange.has_left = True
        self._connection.progressed()
        return leaves

    @property
    def awaits_upstream(self) -> bool:
        """Whether a granted request waits for its upstream: what the worker sends meanwhile would
        pile up in memory, so nothing more is read of it."""
        return self._exchange is not None and not self._exchange.has_left

    def upstream_overdue(self) -> None:
        """The upstream was not ready in time."""
        self._finish(Reason.UPSTREAM_TIMEOUT.value)
        self._connection.abort(Reason.UPSTREAM_TIMEOUT)

    def flooded(self, *, by_worker: bool) -> None:
        reason = Reason.REQUEST_MALFORMED if by_worker else Reason.UPSTREAM_PROTOCOL
        if by_worker:
            self._refuse_unjudged(reason)
        self._finish(reason.value)
        self._connection.abort(reason)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        if self._answers.has_answered(flow):
            return
        exchange = self._exchange
        if exchange is None or exchange.flow_id != flow.id or flow.response is None:
            raise Refused(Reason.INTERNAL)
        if (problem := exchange.admit(flow.request, flow.response)) is not None:
            self._answers.fail(flow, problem, exchange.judgement.decision_id)

    async def response(self, flow: http.HTTPFlow) -> None:
        if not self._answers.has_answered(flow):
            self._finish("complete")

    async def error(self, _flow: http.HTTPFlow) -> None:
        failure = self._answers.upstream_failure
        self._finish(failure.value if failure is not None else "aborted")

    # --- judged again ---------------------------------------------------------------------------

    def review(self) -> None:
        """The policy has changed: what is open here is judged again, and cut if it must not be."""
        if not self._review_tunnel():
            return
        exchange = self._exchange
        if exchange is None or self.requester is None:
            return
        request = egress_request(RequestKind.REQUEST, exchange.target, self.requester)
        held = judge_again(self.core, request, exchange.judgement)
        if held.allowed:
            exchange.judgement = held
            exchange.spend = partial(self.core.spend, held)
        else:
            self._cut(held.reason)

    # --- dialling -------------------------------------------------------------------------------

    def pinned_for(self, server: Server) -> Pinned:
        """The only places that this upstream connection may go to. Raises Refused."""
        exchange = self._exchange
        if exchange is None or server.via is not None or server.transport_protocol != "tcp":
            raise Refused(Reason.NOT_PINNED)
        target = exchange.target
        if server.address != (target.host, target.port):
            raise Refused(Reason.NOT_PINNED)
        if server.tls != (target.scheme == "https") or not exchange.judgement.pinned:
            raise Refused(Reason.NOT_PINNED)
        if (reason := self._still_allowed()) is not None:
            raise Refused(reason)
        return Pinned(exchange.judgement.pinned, target.port)

    def upstream_failed(self, reason: Reason) -> None:
        """The dial did not work; the answer will say so."""
        self._answers.upstream_failure = reason

    # --- answers (called by the strict HTTP/1 server) ---------------------------------------------

    def refuse_head(self, reason: Reason) -> Answer:
        return answer_to(self._refuse_unjudged(reason))

    def answer_for(self, reason: Reason | None) -> Answer | None:
        if reason is not None and self.head is not None:  # refused before any hook saw it
            self.head = None
            return self.refuse_head(reason)
        return self._answers.take(reason, self._decision_id)

    # --- helpers --------------------------------------------------------------------------------

    def _take_head(self) -> RequestHead:
        head, self.head = self.head, None
        if head is None:
            raise Refused(Reason.INTERNAL)
        return head

    def _still_allowed(self) -> Reason | None:
        who = self._tunnel.request.requester if self._tunnel is not None else self.requester
        return self.core.may_speak(who) if who is not None else Reason.NO_IDENTITY

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

    def _open_peer(self, target: Target) -> tuple[str, ...] | None:
        """The peer of an upstream connection that this request would reuse."""
        for server in self._connection.open_upstreams():
            if server.address == (target.host, target.port) and server.peername:
                return (str(server.peername[0]),)
        return None

    def _cut(self, reason: Reason) -> None:
        """End the exchange and reset the connection: a budget was crossed."""
        self._finish(reason.value)
        self._connection.abort(reason)

    def _finish(self, outcome: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.ended = True
        self._finished_flow_id = exchange.flow_id
        self.core.transferred(
            exchange.judgement.decision_id,
            outcome,
            exchange.request_bytes,
            exchange.response_bytes,
            self.core.clocks.now_monotonic_ms() - exchange.started_monotonic_ms,
        )
