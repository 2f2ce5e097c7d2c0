"""What a connection's guard does about servers: which may be dialled, reused, and written to.

Part of `ConnectionGuard`. Whatever leaves was granted to an exchange that is still open: the
address is one of its pinned ones, the connection is verified for its host by what its rule says
and was opened for the same credentials and the same TLS, and the head is, to the letter, the sealed
one.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from mitmproxy import http, tls
from mitmproxy.connection import Client, Server
from mitmproxy.connection import Connection as NetworkConnection

from palyra_egress.clock import now_unix_s
from palyra_egress.credentials.binding import CredentialBinding, SecretValue
from palyra_egress.credentials.echo import EchoFilter
from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.bounds.idleness import IdleClock
from palyra_egress.proxy.bounds.silence import NOTHING_WAITS, Waits
from palyra_egress.proxy.guard.exchange import Exchange
from palyra_egress.proxy.guard.guard_doors import DoorGuard
from palyra_egress.proxy.guard.guard_parts import Connection, GuardParts, Pinned, Refused
from palyra_egress.proxy.guard.http_guard import Carrier
from palyra_egress.proxy.guard.turn import Turn, Turns, answer_to
from palyra_egress.proxy.http.canonical import Target, egress_request
from palyra_egress.proxy.http.trailers import returnable_trailers, trailers_problem
from palyra_egress.proxy.review import judge_again
from palyra_egress.proxy.tls.interception import HTTP1_ALPN, HTTP2_ALPN, upstream_connection
from palyra_egress.proxy.tls.server_tls import ServerTls
from palyra_egress.reasons import Reason
from palyra_egress.request import RequestKind


class OpenedFor(NamedTuple):
    """What an upstream connection is for: nobody else's requests go over it."""

    credentials: tuple[tuple[CredentialBinding, SecretValue], ...]
    server_tls: ServerTls | None


class UpstreamGuard(DoorGuard):
    """The upstream part of the guard of one client connection."""

    def __init__(self, parts: GuardParts, connection: Connection) -> None:
        super().__init__(parts, connection)
        self._turns = Turns()
        self._broken: list[Turn] = []
        self._opened_for: dict[NetworkConnection, OpenedFor] = {}
        self._further: set[Server] = set()
        self._places_handed_on = 0
        self._only_http2: set[tuple[str, int]] = set()
        self._carrier: Carrier | None = None
        self.idle_clock = IdleClock(self.now_monotonic_ms)
        self.is_multiplexed = False
        self._takes_leave = False

    def carried_by(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def is_carried_by(self, carrier: Carrier) -> bool:
        return self._carrier is carrier

    def is_backed_up(self, source: NetworkConnection) -> bool:
        """Whether nothing more should be read of this side now."""
        return self._carrier is not None and self._carrier.is_backed_up(source)

    def takes_pieces(self, source: NetworkConnection) -> bool:
        """Whether what is read of this side belongs to requests, and is handed on in pieces; a
        hello that is passed on goes with all that came with it. What an HTTP/1 worker sends is not
        cut: a server that answers early would find less of the body."""
        if isinstance(source, Client) and _speaks_http1(source):
            return False
        tunnel = self._tunnel
        is_inspected = tunnel is not None and tunnel.has_hello and not self._passes_on
        return is_inspected or bool(self._turns.open())

    @property
    def head_ms(self) -> int:
        return int(self._parts.deadlines.head_s * 1000)

    def now_monotonic_ms(self) -> int:
        return self.core.clocks.now_monotonic_ms()

    # --- dialling -------------------------------------------------------------------------------

    def _exchanges_for(self, server: Server) -> list[tuple[Turn, Exchange]]:
        """The open exchanges that this upstream connection would serve."""
        opened = self._opened_for.get(server)
        return [
            (turn, exchange)
            for turn, exchange in self._turns.open()
            if server.address == (exchange.target.host, exchange.target.port)
            and server.tls == (exchange.target.scheme == "https")
            and opened in (None, _what_it_is_for(exchange))
        ]

    def pinned_for(self, server: Server) -> Pinned:
        """The only places that this upstream connection may go to. Raises Refused."""
        if server.via is not None or server.transport_protocol != "tcp":
            raise Refused(Reason.NOT_PINNED)
        for _, exchange in self._exchanges_for(server):
            if not exchange.judgement.pinned:
                continue
            if (reason := self._still_allowed()) is not None:
                raise Refused(reason)
            server.timestamp_start = now_unix_s()
            return Pinned(exchange.judgement.pinned, exchange.target.port)
        raise Refused(Reason.NOT_PINNED)

    def may_open_further(self, *, waits: bool) -> bool:
        """Whether one more connection may be opened beside those that are there; True takes its
        place, for the next one that `opens`. Who `waits` is told when there is a place."""
        if self._places_handed_on:
            self._places_handed_on -= 1
            return True
        tell = self._take_place if waits else None
        return self.core.openings.begin_further(self._places_of, tell)

    @property
    def _places_of(self) -> str:
        """Who has the places: one connection speaks for one worker."""
        return "" if self.requester is None else self.requester.worker_id

    def _take_place(self) -> None:
        self._places_handed_on += 1
        self._connection.wake_layer()

    def hand_places_on(self) -> None:
        """Whoever waited here has asked again: what was not taken is for others."""
        while self._places_handed_on:
            self._places_handed_on -= 1
            self.core.openings.end_further(self._places_of)

    def upstream_over(self, server: Server) -> None:
        """An upstream connection has ended, or never began."""
        if server in self._further:
            self._further.discard(server)
            self.core.openings.end_further(self._places_of)

    def give_places_back(self) -> None:
        """The connection is over, and all that was open behind it."""
        self._end_opening()
        self.core.openings.wait_no_more(self._take_place)
        self.hand_places_on()
        for server in list(self._further):
            self.upstream_over(server)

    def opens(self, stream_id: int, server: Server, *, is_further: bool) -> None:
        """An upstream connection is opened for this stream: for its credentials, its TLS, and no
        others."""
        if is_further:
            self._further.add(server)
        turn = self._turns.of_stream(stream_id)
        if turn is None or turn.exchange is None:
            raise Refused(Reason.INTERNAL)
        self._opened_for[server] = _what_it_is_for(turn.exchange)

    def may_share(self, stream_id: int, server: NetworkConnection) -> bool:
        """Whether a stream may use an upstream connection that is there (or opening) already."""
        turn = self._turns.of_stream(stream_id)
        exchange = turn.exchange if turn is not None else None
        if exchange is None or self._opened_for.get(server) != _what_it_is_for(exchange):
            return False
        return server.peername is None or server.peername[0] in exchange.judgement.pinned

    def forget_upstream(self, server: NetworkConnection) -> None:
        """This upstream connection is closed and nobody uses it."""
        self._opened_for.pop(server, None)

    def upstream_failed(self, server: Server, reason: Reason) -> None:
        """The dial did not work; the answers will say so."""
        for turn, exchange in self._exchanges_for(server):
            if not exchange.has_left:
                turn.upstream_failure = reason
                if (trace := exchange.judgement.trace) is not None:
                    trace.not_reached(server, reason)

    async def tls_start_server(self, data: tls.TlsData) -> None:
        server = data.conn
        if data.is_dtls or not isinstance(server, Server) or server.address is None:
            raise Refused(Reason.INTERNAL)
        waiting, opened = self._exchanges_for(server), self._opened_for.get(server)
        if not waiting or opened is None or opened.server_tls is None:
            raise Refused(Reason.NOT_PINNED)
        host = waiting[0][1].target.host
        server.sni = host
        if server.address in self._only_http2:
            offered = [HTTP2_ALPN]
        else:
            offered = [HTTP2_ALPN, HTTP1_ALPN] if self.is_multiplexed else [HTTP1_ALPN]
        data.ssl_conn = upstream_connection(host, opened.server_tls.context(), offered)

    async def tls_failed_server(self, data: tls.TlsData) -> None:
        if isinstance(data.conn, Server):
            self.upstream_failed(data.conn, Reason.UPSTREAM_TLS)

    def speaks_only_http2(self, server: NetworkConnection) -> bool:
        """Whether this upstream, asked for HTTP/1.1, refused: it is asked again, for HTTP/2. True
        once per address."""
        address = server.address if isinstance(server, Server) else None
        refused = "no application protocol" in (server.error or "")
        if not refused or self.is_multiplexed or address is None or address in self._only_http2:
            return False
        self._only_http2.add((address[0], address[1]))
        return True

    # --- what is written --------------------------------------------------------------------------

    def leaving(self, stream_id: int, request: http.Request, server: object) -> http.Request:
        """Asked when a head is about to be written to `server`: what is written, which is the
        granted request with its credentials. Raises Refused."""
        turn = self._turns.of_stream(stream_id)
        exchange = turn.exchange if turn is not None else None
        if exchange is None or exchange.ended or not exchange.holds(request):
            raise Refused(Reason.INTERNAL)
        if not isinstance(server, Server) or not self.may_share(stream_id, server):
            raise Refused(Reason.NOT_PINNED)
        leaves = exchange.leaving(request, server)
        if leaves is None:
            raise Refused(Reason.UPSTREAM_TLS)
        exchange.has_left = True
        if (trace := exchange.judgement.trace) is not None:
            trace.leaves(server)
        self._connection.progressed()
        return leaves

    def left_whole(self, stream_id: int) -> None:
        """All of a request was written: from now on its server has a deadline to answer."""
        turn = self._turns.of_stream(stream_id)
        exchange = turn.exchange if turn is not None else None
        if exchange is not None and not exchange.has_answer:
            exchange.unanswered_since_ms = self.now_monotonic_ms()

    def reset_servers(self) -> None:
        self._connection.reset_upstreams()

    def may_discard(self, stream_id: int, count: int) -> bool:
        """Count body bytes that go nowhere, since their request was answered before its end. Those
        of a request that was granted cost its hours as if they had left."""
        turn = self._turns.of_stream(stream_id)
        exchange = turn.exchange if turn is not None else None
        return exchange is None or exchange.spend(Direction.OUT, count)

    def has_open(self, carrier: Carrier) -> bool:
        """Whether an exchange that this layer carries goes on."""
        return self.is_carried_by(carrier) and bool(self._turns.open())

    def idle_for_s(self) -> float:
        """For how long this connection has carried nothing: no exchange, no tunnel that is passed
        on, and nothing that is being decided."""
        tunnel = self._tunnel
        passes_on = tunnel is not None and tunnel.is_taken and tunnel.relay is not None
        if passes_on or self._turns.open():
            return 0.0
        return self.idle_clock.idle_ms / 1000

    def bid_farewell(self) -> float:
        """Have a worker of HTTP/2 told that its idle connection ends: how many seconds that may
        take, 0 where nobody is told."""
        if not self.is_multiplexed:
            return 0.0
        self._takes_leave = True
        self._connection.wake_layer()
        return self._parts.deadlines.last_answer_s

    def takes_leave(self) -> bool:
        """Whether the worker is to be told, once, that its connection ends."""
        takes_leave, self._takes_leave = self._takes_leave, False
        return takes_leave

    def wants_trailers(self, stream_id: int) -> bool:
        """Whether the worker of this stream reads trailers (`te: trailers`)."""
        turn = self._turns.of_stream(stream_id)
        return turn is not None and turn.exchange is not None and turn.exchange.wants_trailers

    def take_trailers(self, stream_id: int, trailers: http.Headers) -> bool:
        """Trailers came from the worker: looked at, and then part of what was granted. False: they
        are audited as refused, and the turn is over."""
        turn = self._turns.of_stream(stream_id)
        exchange = turn.exchange if turn is not None else None
        if turn is None or exchange is None or exchange.ended:
            return True  # answered already, or over: they go nowhere
        if self.requester is None:
            raise Refused(Reason.INTERNAL)
        request = egress_request(RequestKind.REQUEST, exchange.target, self.requester)
        refusal = None
        if trailers_problem(trailers.fields, exchange.injected):
            refusal = self.core.refuse(
                self._leaks.redacted(request), Reason.REQUEST_MALFORMED, self._connection
            )
        refusal = refusal or self._leaks.look_at_trailers(request, trailers)
        if refusal is None:
            exchange.take_trailers(trailers)
            return True
        turn.decision_id = refusal.decision_id
        self._break_off(turn, refusal.reason)
        turn.hold(answer_to(refusal))
        return False

    def admit_interim(self, stream_id: int, response: http.Response) -> bool:
        """Whether an interim response may be passed on, which is then what the worker may see."""
        turn = self._turns.of_stream(stream_id)
        exchange = turn.exchange if turn is not None else None
        if turn is None or exchange is None or exchange.ended or not exchange.has_left:
            return False
        is_hint = exchange.admit_interim(response)
        return is_hint and response.status_code == 103

    def _return_trailers(self, exchange: Exchange, response: http.Response) -> None:
        """Make response trailers what the worker may see."""
        if response.trailers is None:
            return
        fields = returnable_trailers(response.trailers.fields)
        if exchange.injected:
            echo = EchoFilter(exchange.injected)
            fields = tuple((n, echo.redacted(v)) for n, v in fields if not echo.holds(n))
        response.trailers = http.Headers(fields) if fields else None

    # --- ending -----------------------------------------------------------------------------------

    def _break_off(self, turn: Turn, reason: Reason, *, in_layer: bool = False) -> None:
        """End one turn: in HTTP/1, and where its worker may speak no more, with the connection; in
        HTTP/2, and where the layer asked (`in_layer`), its stream alone, which the layer does as
        soon as it hears of it."""
        self._finish(turn, reason.value)
        turn.break_off(reason)
        if not (self.is_multiplexed or in_layer) or self._still_allowed() is not None:
            self._connection.abort(reason)
            return
        self._broken.append(turn)
        self._connection.wake_layer()

    def overdue(self, waits: Mapping[int, Waits]) -> None:
        """Break off what takes too long: without an answer its worker is told, and otherwise sees
        that what it has is not all."""
        for turn, exchange in self._turns.open():
            reason = self._too_late(turn, exchange, waits.get(turn.stream_id, NOTHING_WAITS))
            if reason is not None:
                self._break_off(turn, reason, in_layer=not exchange.has_answer)

    def _too_late(self, turn: Turn, exchange: Exchange, waits: Waits) -> Reason | None:
        """Why an exchange must not go on: its server is not ready or does not answer, it is silent,
        or has its whole time behind it. An open socket has deadlines of its own."""
        if exchange.socket is not None and exchange.socket.is_open:
            return None
        deadlines, now = self._parts.deadlines, self.now_monotonic_ms()
        age_ms, since = now - exchange.started_monotonic_ms, exchange.unanswered_since_ms
        if age_ms >= deadlines.exchange_s * 1000:
            return Reason.DEADLINE
        if not exchange.has_left:
            return Reason.UPSTREAM_TIMEOUT if age_ms > deadlines.upstream_s * 1000 else None
        if since is not None and now - since >= deadlines.answer_s * 1000:
            turn.is_unanswered = True
            return Reason.UPSTREAM_TIMEOUT
        return exchange.silence.look(exchange.progress, waits, deadlines, now)

    def take_broken(self) -> list[Turn]:
        """The turns that were broken off since the last time."""
        broken, self._broken = self._broken, []
        return broken

    def review(self) -> None:
        """The policy has changed: what is open here is judged again, and cut if it must not be."""
        if not self._review_tunnel() or self.requester is None:
            return
        for turn, exchange in self._turns.open():
            request = egress_request(RequestKind.REQUEST, exchange.target, self.requester)
            held = judge_again(self.core, request, exchange.judgement)
            if held.allowed:
                exchange.judgement = held
                exchange.spend = partial(self.core.spend, held)
            else:
                self._break_off(turn, held.reason)

    def _finish(self, turn: Turn, outcome: str) -> None:
        """An exchange is over; told once."""
        exchange = turn.exchange
        if exchange is None or exchange.ended:
            return
        exchange.ended = True
        turn.is_finished = True
        self.idle_clock.begin_again()
        self.core.transferred(
            exchange.judgement.decision_id,
            outcome,
            exchange.request_bytes,
            exchange.response_bytes,
            self.core.clocks.now_monotonic_ms() - exchange.started_monotonic_ms,
            exchange.socket.frames if exchange.socket is not None else None,
        )
        if (trace := exchange.judgement.trace) is not None:
            trace.ended(outcome, exchange.request_bytes, exchange.response_bytes)

    def _finish_all(self, outcome: str) -> None:
        for turn, _ in self._turns.open():
            self._finish(turn, outcome)

    def _still_allowed(self) -> Reason | None:
        who = self._tunnel.request.requester if self._tunnel is not None else self.requester
        return self.core.may_speak(who) if who is not None else Reason.NO_IDENTITY

    def _open_peer(self, target: Target) -> tuple[str, ...] | None:
        """The peer of an upstream connection that this request would reuse."""
        for server in self._connection.open_upstreams():
            if server.address == (target.host, target.port) and server.peername:
                return (str(server.peername[0]),)
        return None


def _what_it_is_for(exchange: Exchange) -> OpenedFor:
    """Which credentials an exchange carries and how its server is met; connections are not shared
    across either."""
    carried = tuple((one.binding, one.secret) for one in exchange.injected)
    return OpenedFor(carried, exchange.judgement.server_tls)


def _speaks_http1(worker: Client) -> bool:
    """Whether it is settled that this worker's connection carries HTTP/1."""
    return not worker.tls or (worker.tls_established and worker.alpn != HTTP2_ALPN)
