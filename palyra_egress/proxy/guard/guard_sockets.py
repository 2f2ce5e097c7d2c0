"""What a connection's guard does about WebSockets: who may have one, and every byte in it.

Part of `ConnectionGuard`. The request that asks for a socket is judged like any other, with the
upgrade as one more condition of the rule. The exchange stays open for as long as the socket: its
budgets are those of the bytes each way, frames of control included; it is judged again when the
policy changes, and it ends with its connection. What is no WebSocket's, what may not leave, silence
and too long a life end it with a reset; each has its entry in the audit log.
"""

from functools import partial

from mitmproxy import http

from palyra_egress.credentials.patterns import Finding
from palyra_egress.credentials.request_scan import Leak
from palyra_egress.credentials.stream_scan import Stop
from palyra_egress.proxy.guard.exchange import Exchange
from palyra_egress.proxy.guard.guard_upstream import UpstreamGuard
from palyra_egress.proxy.guard.turn import Turn
from palyra_egress.proxy.http.canonical import egress_request
from palyra_egress.proxy.websocket.websocket import WebSocket
from palyra_egress.proxy.websocket.websocket_frames import BrokenFrames, FoundLeaving, TooManyFrames
from palyra_egress.proxy.websocket.websocket_handshake import (
    WebSocketOffer,
    asks_for_upgrade,
    offer_upstream,
    read_offer,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, RequestKind


class SocketGuard(UpstreamGuard):
    """The sockets' part of the guard of one client connection."""

    # --- the handshake ----------------------------------------------------------------------------

    def _offer(self, request: http.Request) -> WebSocketOffer | Reason | None:
        """The WebSocket that this request asks for, or why it may ask for no such thing."""
        return read_offer(request) if asks_for_upgrade(request.headers) else None

    def _prepare_socket(
        self, request: http.Request, offer: WebSocketOffer | None
    ) -> WebSocket | None:
        """Write the offer into a request that is about to be sealed."""
        if offer is None:
            return None
        offer_upstream(request.headers)
        return WebSocket(offer, self._leaks.new_scanner)

    # --- called by the layer that carries it ------------------------------------------------------

    def socket_opens(self, stream_id: int) -> bool:
        found = self._socket(stream_id)
        if found is None:
            return False
        turn, _, socket = found
        deadlines = self._parts.deadlines
        self._connection.after(deadlines.tunnel_s, partial(self._end_socket, turn))
        self._listen_for_silence(turn, socket)
        return True

    def socket_data(self, stream_id: int, data: bytes, *, from_worker: bool) -> bytes:
        found = self._socket(stream_id)
        if found is None:
            return b""
        turn, exchange, socket = found
        socket.was_active = True
        if not exchange.meter_frames(data, from_worker=from_worker):
            return b""
        was_closing = socket.is_closing
        try:
            out = socket.take(data, self.now_monotonic_ms(), from_worker=from_worker)
        except BrokenFrames:
            reason = Reason.REQUEST_MALFORMED if from_worker else Reason.UPSTREAM_PROTOCOL
            self._socket_broken(turn, exchange, reason, from_worker=from_worker)
            return b""
        except TooManyFrames:
            self._socket_broken(turn, exchange, Reason.RATE_LIMITED, from_worker=from_worker)
            return b""
        except FoundLeaving as found_leaving:
            self._socket_leaks(turn, exchange, found_leaving.stop)
            return b""
        if socket.is_over:
            self._finish(turn, "complete")
        elif socket.is_closing and not was_closing:
            half_open_s = self._parts.deadlines.half_open_s
            self._connection.after(half_open_s, partial(self._end_socket, turn))
        return out

    def socket_ends(self, stream_id: int, *, from_worker: bool) -> None:
        found = self._socket(stream_id)
        if found is not None:
            turn, _, socket = found
            early = "client_closed" if from_worker else "server_closed"
            self._finish(turn, self.outcome("complete" if socket.is_closing else early))

    def socket_is_over(self, stream_id: int) -> bool:
        return self._socket(stream_id) is None

    # --- its end ----------------------------------------------------------------------------------

    def _socket(self, stream_id: int) -> tuple[Turn, Exchange, WebSocket] | None:
        """The open socket of a stream."""
        turn = self._turns.of_stream(stream_id)
        exchange = turn.exchange if turn is not None else None
        if turn is None or exchange is None or exchange.ended or exchange.socket is None:
            return None
        return (turn, exchange, exchange.socket) if exchange.socket.is_open else None

    def _asked(self, exchange: Exchange) -> EgressRequest | None:
        """The request that asked for the socket, as it may be written down."""
        if self.requester is None:
            return None
        request = egress_request(RequestKind.REQUEST, exchange.target, self.requester)
        return self._leaks.redacted(request)

    def _socket_broken(
        self, turn: Turn, exchange: Exchange, reason: Reason, *, from_worker: bool
    ) -> None:
        """One side's doing ends it; only a worker's is a refusal of its own."""
        asked = self._asked(exchange)
        if from_worker and asked is not None:
            self.core.refuse(asked, reason, self._connection)
        self._break_off(turn, reason)

    def _socket_leaks(self, turn: Turn, exchange: Exchange, stop: Finding | Stop) -> None:
        asked = self._asked(exchange)
        finding = stop if isinstance(stop, Finding) else None
        reason = Reason.BODY_UNREADABLE if finding is None else finding.reason
        if asked is not None:
            self.core.refuse_leak(asked, Leak(reason, "message", finding), self._connection)
        self._break_off(turn, reason)

    def _end_socket(self, turn: Turn) -> None:
        if turn.exchange is not None and not turn.exchange.ended:
            self._break_off(turn, Reason.DEADLINE)

    def _listen_for_silence(self, turn: Turn, socket: WebSocket) -> None:
        """Look again after the time that may pass without a byte."""
        if turn.exchange is None or turn.exchange.ended:
            return
        socket.was_active = False
        idle_s = self._parts.deadlines.idle_s
        self._connection.after(idle_s, partial(self._look_for_silence, turn, socket))

    def _look_for_silence(self, turn: Turn, socket: WebSocket) -> None:
        if socket.was_active:
            self._listen_for_silence(turn, socket)
        else:
            self._end_socket(turn)
