"""What a connection's guard knows about who is asking, and how it refuses who may not.

Part of `ConnectionGuard`. One connection carries one identity: the first lease whose credentials
were verified on it. Later credentials must be of the same lease.
"""

from mitmproxy import http

from palyra_egress.proxy.core import Judgement
from palyra_egress.proxy.guard_parts import Connection, GuardParts
from palyra_egress.proxy.identity import ProxyCredentials, parse_proxy_credentials
from palyra_egress.proxy.leak_guard import LeakGuard
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester


class IdentityGuard:
    """The identity's part of the guard of one client connection."""

    def __init__(self, parts: GuardParts, connection: Connection) -> None:
        self.core = parts.core
        self.requester: Requester | None = None
        self._parts = parts
        self._connection = connection
        self._leaks = LeakGuard(parts.core, connection)

    def _identify(self, headers: http.Headers) -> Reason | None:
        """Verify the credentials of this request; None when they are good for it."""
        return self._identify_as(parse_proxy_credentials(headers.get_all("proxy-authorization")))

    def _identify_as(self, credentials: ProxyCredentials | None) -> Reason | None:
        """Verify credentials, however they came; None when they are good."""
        if credentials is None:
            return self.core.admission() or Reason.NO_IDENTITY
        found = self.core.authenticate(credentials.lease_id, credentials.secret)
        who = found.requester
        if who is None:
            return found.refusal or Reason.BAD_CREDENTIALS
        if self.requester is not None and self.requester != who:
            other = self.requester.worker_id != who.worker_id
            return Reason.FOREIGN_CREDENTIALS if other else Reason.IDENTITY_CHANGED
        if self.requester is None:
            if not self.core.connections.identify(self._connection, who.worker_id):
                return Reason.TOO_MANY_CONNECTIONS
            self.requester = who
            self._leaks.remember(credentials.secret)
        return found.refusal

    def _refuse_unjudged(self, reason: Reason) -> Judgement:
        """Refuse before there is a canonical request. Too many strangers are only cut off."""
        judgement = self.core.refuse_early(reason, self.requester)
        if not judgement.decision_id:
            self._connection.abort(judgement.reason)
        return judgement
