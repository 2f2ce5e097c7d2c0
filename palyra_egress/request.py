"""What the judge judges: one request, already canonical.

An `EgressRequest` is made only by a canonicaliser (`destination.hostname` for names, the proxy's
request canonicaliser for live traffic, `judge_request_from_url` for the command line), so the rest
of the program compares strings that have one spelling. Units: ports 1 to 65535, paths without
query, always starting with `/` (empty for CONNECT).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NewType

from palyra_egress.facts import UNATTESTED, AttestedFacts

CanonicalHost = NewType("CanonicalHost", str)
"""A lower-case A-label name without trailing dot, or a canonical IP literal without brackets."""

Scheme = Literal["http", "https"]

WEBSOCKET_SCHEMES: Final[dict[Scheme, str]] = {"http": "ws", "https": "wss"}


class RequestKind(StrEnum):
    """CONNECT asks for a tunnel (host and port only); REQUEST is a full HTTP request."""

    CONNECT = "connect"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Requester:
    """Who is asking: the worker and the lease whose credential was verified, and its profile.

    `facts` are what the fleet has verified about the worker. They change while a lease lives, so
    they say nothing about whether two requesters are the same.
    """

    worker_id: str
    lease_id: str
    profile: str
    run_id: str = ""
    fence: int = 0
    facts: AttestedFacts = field(default=UNATTESTED, compare=False)


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """One canonical request. For CONNECT the method is `CONNECT` and the path empty; the scheme is
    `https`, or `http` where plain HTTP is to be spoken behind SOCKS or a redirected connection.
    `websocket`: it asks to go on as a WebSocket (RFC 6455)."""

    kind: RequestKind
    method: str
    scheme: Scheme
    host: CanonicalHost
    port: int
    path: str
    query: str
    requester: Requester
    websocket: bool = False

    @property
    def url(self) -> str:
        """The canonical URL without its query; `host:port` for CONNECT, `http://host:port` where
        the tunnel is for plain HTTP; `ws` and `wss` as schemes of a WebSocket."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.kind is RequestKind.CONNECT and self.scheme == "https":
            return f"{host}:{self.port}"
        scheme = WEBSOCKET_SCHEMES[self.scheme] if self.websocket else self.scheme
        return f"{scheme}://{host}:{self.port}{self.path}"
