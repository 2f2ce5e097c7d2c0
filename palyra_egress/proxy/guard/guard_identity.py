"""What a connection's guard knows about who is asking, and how it refuses who may not.

Part of `ConnectionGuard`. One connection carries one identity: that of its channel, or the first
lease whose credentials were verified on it. Later credentials must be of the same lease, and the
channel is asked again at every request.
"""

from mitmproxy import http

from palyra_egress.proxy.bindings import Authentication
from palyra_egress.proxy.guard.guard_parts import Connection, GuardParts
from palyra_egress.proxy.guard.leak_guard import LeakGuard
from palyra_egress.proxy.identity import ProxyCredentials, parse_proxy_credentials
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester


class IdentityGuard:
    """The identity's part of the guard of one client connection."""

    def __init__(self, parts: GuardParts, connection: Connection) -> None:
        self.core = parts.core
        self.requester: Requester | None = None
        self._was_heard = False  # it asked something, and that is in the audit log
        self._parts = parts
        self._connection = connection
        self._leaks = LeakGuard(parts.core, connection)

    def outcome(self, seen: str) -> str:
        """How something ended that looks as if it had ended like this: once the connection was
        reset, every end that is seen is ours."""
        reason = self._connection.severed_for
        return seen if reason is None else reason.value

    def _identify(self, headers: http.Headers) -> Reason | None:
        """Verify who makes this request; None when it may."""
        shown = headers.get_all("proxy-authorization")
        return self._identify_as(parse_proxy_credentials(shown), is_shown=bool(shown))

    def _identify_as(
        self, credentials: ProxyCredentials | None, *, is_shown: bool = False
    ) -> Reason | None:
        """Verify credentials, however they came, and the channel, if there is one; None when all of
        them say the same and may speak. On a channel no credentials are needed; ones that cannot be
        read (`is_shown`, and None) are refused all the same."""
        if (channel := self._connection.channel) is not None:
            found = self.core.recognise(channel)
            if (reason := self._take(found) or found.refusal) is not None:
                return reason
            if credentials is None:
                return Reason.BAD_CREDENTIALS if is_shown else None
        if credentials is None:
            return self.core.admission() or Reason.NO_IDENTITY
        found = self.core.authenticate(credentials.lease_id, credentials.secret)
        if (reason := self._take(found)) is not None:
            return reason
        self._leaks.remember(credentials.secret)
        return found.refusal

    def _take(self, found: Authentication) -> Reason | None:
        """Bind the connection to whom was found, or compare with whom it is bound to. None where
        they are the same; whether that one may speak is another question."""
        who = found.requester
        if who is None:
            return found.refusal or Reason.BAD_CREDENTIALS
        if self.requester is None:
            if not self.core.connections.identify(self._connection, who.worker_id):
                return Reason.TOO_MANY_CONNECTIONS
            self.requester = who
        if self.requester != who:
            other = self.requester.worker_id != who.worker_id
            return Reason.FOREIGN_CREDENTIALS if other else Reason.IDENTITY_CHANGED
        return None

    def expect_identity(self) -> None:
        """The time to show whose connection this is has passed. A cut that follows nothing else is
        an early refusal of its own, at the strangers' rate."""
        if self.requester is None:
            self._cut_stranger(Reason.NO_IDENTITY)

    def make_room(self) -> None:
        """Others need the place that this connection holds for nobody."""
        self._cut_stranger(Reason.TOO_MANY_CONNECTIONS)

    def _cut_stranger(self, reason: Reason) -> None:
        if self._connection.severed_for is not None:
            return
        if not self._was_heard:
            self._refuse_early(reason)
        self._connection.abort(reason)

    def _refuse_unjudged(self, reason: Reason) -> Judgement:
        """Refuse before there is a canonical request. Too many strangers are only cut off."""
        self._was_heard = True
        judgement = self._refuse_early(reason)
        if not judgement.decision_id:
            self._connection.abort(judgement.reason)
        return judgement

    def _refuse_early(self, reason: Reason) -> Judgement:
        return self.core.refuse_early(reason, self.requester, self._connection.source)
