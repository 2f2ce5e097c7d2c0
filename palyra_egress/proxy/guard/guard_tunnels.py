"""What a connection's guard does about tunnels: their protocol, their TLS, and those passed on.

Part of `ConnectionGuard`. An allowed CONNECT makes a `Tunnel`. Inspected, its TLS is answered here
and the requests inside are judged one by one; passed on, its ClientHello is the last thing that is
read, and a `Relay` counts the rest. Either way the hello must come in time and name the tunnel's
host, and the tunnel is judged again whenever the policy changes.
"""

from typing import Final

from mitmproxy import http, tls

from palyra_egress.clock import now_utc
from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.guard.guard_identity import IdentityGuard
from palyra_egress.proxy.guard.guard_parts import Connection, GuardParts, Pinned, Refused, Tunnel
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.review import judge_again
from palyra_egress.proxy.tls.client_hello import hello_problem
from palyra_egress.proxy.tunnels.relay import Relay
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest
from palyra_egress.verdict import TlsMode

_BY_WORKER: Final = frozenset(
    {
        Reason.NON_HTTP_IN_TUNNEL,
        Reason.REQUEST_MALFORMED,
        Reason.AUTHORITY_MISMATCH,
        Reason.SNI_MISSING,
        Reason.ECH_NOT_ALLOWED,
        Reason.PROTOCOL_NOT_SUPPORTED,
    }
)
"""What a worker sends through its tunnel can be refused for these."""


class TunnelGuard(IdentityGuard):
    """The tunnel's part of the guard of one client connection."""

    def __init__(self, parts: GuardParts, connection: Connection) -> None:
        super().__init__(parts, connection)
        self._tunnel: Tunnel | None = None
        self._opens_as: str | None = None

    # --- places ---------------------------------------------------------------------------------

    def _begin_opening(self, request: EgressRequest) -> Judgement | None:
        """Take a place among the worker's tunnels that are opening; refused, if there is none."""
        worker_id = request.requester.worker_id
        if self._opens_as is None:
            if not self.core.openings.begin(worker_id):
                return self.core.refuse(request, Reason.TOO_MANY_CONNECTIONS, self._connection)
            self._opens_as = worker_id
        return None

    def _end_opening(self) -> None:
        """The tunnel is open, or it is over: its place is free."""
        if self._opens_as is not None:
            self.core.openings.end(self._opens_as)
            self._opens_as = None

    async def tls_established_client(self, _data: tls.TlsData) -> None:
        self._end_opening()

    # --- which protocol ---------------------------------------------------------------------------

    def _refuse_protocol(self) -> None:
        if self._tunnel is not None:
            self.core.refuse(self._tunnel.request, Reason.NON_HTTP_IN_TUNNEL, self._connection)
            self.tunnel_over(Reason.NON_HTTP_IN_TUNNEL.value)
        else:
            self._refuse_early(Reason.PROTOCOL_NOT_SUPPORTED)

    @property
    def _passes_on(self) -> bool:
        """Whether there is a tunnel, and it is not inspected."""
        tunnel = self._tunnel
        return tunnel is not None and tunnel.judgement.carriage.mode is TlsMode.TUNNEL

    # --- CONNECT and TLS --------------------------------------------------------------------------

    async def http_connected(self, _flow: http.HTTPFlow) -> None:
        if self._tunnel is None:
            raise Refused(Reason.INTERNAL)

    async def http_connect_error(self, _flow: http.HTTPFlow) -> None:
        self._tunnel = None

    async def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        data.ignore_connection = False
        data.establish_server_tls_first = False
        if self._tunnel is None:
            raise Refused(Reason.PROTOCOL_NOT_SUPPORTED)
        tunnel = self._tunnel
        reason = self._hello_refusal(data.client_hello.raw_bytes(wrap_in_record=False))
        if reason is not None:
            self.core.refuse(tunnel.request, reason, self._connection)
            self.tunnel_over(reason.value)
            raise Refused(reason, audited=True)
        tunnel.has_hello = True

    def _hello_refusal(self, message: bytes) -> Reason | None:
        """Why a ClientHello (without its header) may not open the tunnel, or None."""
        if (tunnel := self._tunnel) is None:
            return Reason.INTERNAL
        return self.core.may_speak(tunnel.request.requester) or hello_problem(
            message, tunnel.request, tunnel.judgement.carriage
        )

    async def tls_start_client(self, data: tls.TlsData) -> None:
        if self._tunnel is None or self._passes_on or data.is_dtls:
            raise Refused(Reason.PROTOCOL_NOT_SUPPORTED)
        host = self._tunnel.request.host
        data.ssl_conn = self._parts.authority.server_connection(host, now_utc())

    # --- tunnels that are passed on ---------------------------------------------------------------

    def _open_tunnel(self, request: EgressRequest, judgement: Judgement) -> None:
        """The CONNECT is allowed: from now on its ClientHello has a deadline."""
        self._tunnel = Tunnel(request, judgement)
        if judgement.carriage.mode is TlsMode.TUNNEL:
            now = self.core.clocks.now_monotonic_ms()
            self._tunnel.relay = Relay(judgement, now, self.core.spend, self._hello_refusal)
        self._connection.after(self._parts.deadlines.hello_s, self._expect_hello)

    def _expect_hello(self) -> None:
        if self._tunnel is not None and not self._tunnel.has_hello:
            self.tunnel_over("no_client_hello")
            self._connection.abort(Reason.DEADLINE)

    def pass_on(self, hello: bytes) -> None:
        """The whole ClientHello (and what came with it) is there; it counts if it was accepted."""
        tunnel = self._tunnel
        if tunnel is not None and tunnel.relay is not None and tunnel.has_hello:
            tunnel.relay.hello = hello
            self._end_opening()

    def take_relay(self) -> Relay | None:
        """The relay that is to begin now; it is given out once."""
        tunnel = self._tunnel
        if tunnel is None or tunnel.relay is None or not tunnel.relay.hello or tunnel.is_taken:
            return None
        tunnel.is_taken = True
        return tunnel.relay

    def pinned_for_relay(self) -> Pinned:
        """The only places that the tunnel may go to. Raises Refused."""
        tunnel = self._tunnel
        if tunnel is None or not tunnel.is_taken or not tunnel.judgement.pinned:
            raise Refused(Reason.NOT_PINNED)
        if (reason := self.core.may_speak(tunnel.request.requester)) is not None:
            raise Refused(reason)
        return Pinned(tunnel.judgement.pinned, tunnel.request.port)

    def refuse_tunnel(self, reason: Reason) -> None:
        """What the worker sends through its tunnel ends it: audited, and both sides are reset."""
        if self._tunnel is None:
            self._refuse_early(reason)
        else:
            self.core.refuse(self._tunnel.request, reason, self._connection)
        self.cut_tunnel(reason)

    def stop_tunnel(self, reason: Reason) -> None:
        """A tunnel that is being carried must not go on: what the worker did is a refusal, a budget
        or the server's doing only its end."""
        if reason in _BY_WORKER:
            self.refuse_tunnel(reason)
        else:
            self.cut_tunnel(reason)

    @property
    def deadlines(self) -> Deadlines:
        return self._parts.deadlines

    def cut_tunnel(self, reason: Reason) -> None:
        """End the tunnel and reset the connection."""
        self.tunnel_over(reason.value)
        self._connection.abort(reason)

    def tunnel_over(self, outcome: str) -> None:
        """A tunnel that was passed on has ended; told once."""
        tunnel = self._tunnel
        if tunnel is None or tunnel.relay is None:
            return
        relay, tunnel.relay = tunnel.relay, None
        self.core.transferred(
            tunnel.judgement.decision_id,
            outcome,
            relay.request_bytes,
            relay.response_bytes,
            self.core.clocks.now_monotonic_ms() - relay.started_monotonic_ms,
        )
        if (trace := tunnel.judgement.trace) is not None:
            trace.ended(outcome, relay.request_bytes, relay.response_bytes)

    # --- judged again -----------------------------------------------------------------------------

    def _review_tunnel(self) -> bool:
        """Judge the open tunnel again; False if it was cut."""
        tunnel = self._tunnel
        if tunnel is None:
            return True
        held = judge_again(self.core, tunnel.request, tunnel.judgement)
        if not held.allowed:
            self.cut_tunnel(held.reason)
            return False
        tunnel.judgement = held
        if tunnel.relay is not None:
            tunnel.relay.judgement = held
        return True
