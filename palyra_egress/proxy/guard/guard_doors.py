"""What a connection's guard decides where the target is named by something else than HTTP.

Part of `ConnectionGuard`. SOCKS, and what a redirected connection begins with, ask for a tunnel as
CONNECT does, and are judged in the same way: before any look-up, then pinned, and dialled only when
something allowed comes through. Inside, TLS is inspected or passed on as the policy says, and plain
HTTP is judged request by request where a rule allows the scheme `http`; nothing else passes. Which
of the two is spoken is seen in the first bytes: where it is not what was judged, the tunnel is
judged for it before anything else.
"""

from dataclasses import replace

from palyra_egress.proxy.guard.guard_parts import AskedTunnel, Refused, ShownCredentials
from palyra_egress.proxy.guard.guard_tunnels import TunnelGuard
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest, RequestKind, Scheme
from palyra_egress.verdict import NeedsResolution


class DoorGuard(TunnelGuard):
    """The doors' part of the guard of one client connection."""

    def expect_target(self) -> None:
        """From now on the client has a deadline to say where it wants to go."""
        self._connection.after(self._parts.deadlines.target_s, self._miss_target)

    def _miss_target(self) -> None:
        if self._tunnel is None:
            self._refuse_unjudged(Reason.DEADLINE)
            self._connection.abort(Reason.DEADLINE)

    def refuse_at_door(self, reason: Reason) -> Judgement:
        """What the client sends names no target: audited; the layer answers and hangs up."""
        return self._refuse_unjudged(self._recognise() or reason)

    def _recognise(self) -> Reason | None:
        """Whose channel it is, where it is somebody's: the program on a redirected connection knows
        nothing of us, and shows nothing. Why that one may not speak, or None."""
        return None if self._connection.channel is None else self._identify_as(None)

    async def socks_shown(self, shown: ShownCredentials) -> None:
        """Verify the credentials of a SOCKS client."""
        shown.refusal = self._identify_as(shown.credentials)
        if shown.refusal is not None:
            self._refuse_unjudged(shown.refusal)

    async def tunnel_asked(self, asked: AskedTunnel) -> None:
        """Judge a tunnel to the target that was named; allowed, it is open."""
        if (reason := self._recognise()) is not None:
            asked.judgement = self._refuse_unjudged(reason)
            return
        if self._tunnel is not None or self.requester is None:
            raise Refused(Reason.INTERNAL)
        request = self._bare_request(asked.host, asked.port, asked.scheme or "https")
        if asked.scheme is None and not self._could_be(request):
            plain = replace(request, scheme="http")
            request = plain if self._could_be(plain) else request
        asked.judgement = await self._judge_tunnel(request, None)

    def _bare_request(self, host: CanonicalHost, port: int, scheme: Scheme) -> EgressRequest:
        who = self.requester
        if who is None:
            raise Refused(Reason.NO_IDENTITY)
        return EgressRequest(RequestKind.CONNECT, "CONNECT", scheme, host, port, "", "", who)

    def _could_be(self, request: EgressRequest) -> bool:
        """Whether the judge would go on with it; nothing is decided, resolved or counted here."""
        asked = self.core.with_facts(request)
        first = self.core.service.precheck(asked, self.core.clocks.now_unix_ms())
        return isinstance(first, NeedsResolution) or first.allowed

    async def _judge_tunnel(
        self, request: EgressRequest, known: tuple[str, ...] | None
    ) -> Judgement:
        if (leak := self._leaks.look(request, None, has_body=False).refusal) is not None:
            return leak
        if (full := self._begin_opening(request)) is not None:
            return full
        judgement = await self.core.judge(request, known, None, self._connection)
        if judgement.allowed:
            self._open_tunnel(request, judgement)
        else:
            self._end_opening()
        await self.core.slow_down(judgement, self.requester)
        return judgement

    async def _settle_scheme(self, *, starts_tls: bool) -> bool:
        """Whether what begins in the tunnel may go on: as what was judged, or judged now. If not,
        that is in the audit log."""
        tunnel = self._tunnel
        scheme: Scheme = "https" if starts_tls else "http"
        if tunnel is not None and tunnel.request.scheme == scheme:
            return True
        request = None if tunnel is None else replace(tunnel.request, scheme=scheme)
        if tunnel is None or request is None or not (starts_tls or self._could_be(request)):
            self._refuse_protocol()
            return False
        self.tunnel_over("other_protocol")
        return (await self._judge_tunnel(request, tunnel.judgement.addresses)).allowed
