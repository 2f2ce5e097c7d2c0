"""From a checked request head to the one canonical target that is judged and forwarded. Pure.

CONNECT takes `host:port`; a plain request takes absolute form with scheme http; a request inside a
tunnel takes origin form only, and its Host must be the host and port the tunnel was opened for.
Everywhere exactly one Host header is needed (CONNECT may leave it out) and must name the same
target. What does not fit raises `TargetRefused` with its reason.
Source: RFC 9112 section 3.2; RFC 9110 sections 7.2 and 7.6.1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from palyra_egress.destination.hostname import HostRefused, parse_authority
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest, Requester, RequestKind, Scheme

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_ABSOLUTE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}")

# Headers that end at this proxy, in both directions; `proxy-*` is matched by its prefix.
HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "upgrade", "alt-svc", "proxy-connection"}
)
# What a Connection header may not name, because framing and routing depend on it.
_NEVER_NOMINATED: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "content-type", "authorization", "cookie"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: canonical host, explicit port, path and query (without `?`)."""

    method: str
    scheme: Scheme
    host: CanonicalHost
    port: int
    path: str
    query: str
    websocket: bool = False

    @property
    def host_header(self) -> str:
        """The canonical Host value: the default port left out, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class TargetRefused(Exception):
    """The request names no acceptable target. `reason` says why; `target` is what the request line
    named, where that alone was well-formed, so that the refusal can cost what the policy says."""

    def __init__(self, reason: Reason, target: Target | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.target = target


def connect_target(head: RequestHead, hosts: Sequence[str]) -> Target:
    """The target of a CONNECT."""
    target = Target("CONNECT", "https", *_authority(head.target, None), "", "")
    for value in hosts:
        _same(_authority(value, target.port), target)
    if len(hosts) > 1:
        raise TargetRefused(Reason.REQUEST_MALFORMED)
    return target


def plain_target(head: RequestHead, hosts: Sequence[str]) -> Target:
    """The target of a plain request in absolute form."""
    match = _ABSOLUTE.fullmatch(head.target)
    if match is None:
        raise TargetRefused(Reason.REQUEST_MALFORMED)
    scheme = match["scheme"].lower()
    if scheme == "https":
        raise TargetRefused(Reason.PROTOCOL_NOT_SUPPORTED)
    if scheme != "http":
        raise TargetRefused(Reason.SCHEME_UNSUPPORTED)
    host, port = _authority(match["authority"], 80)
    target = Target(_method(head), "http", host, port, *_path(match["rest"] or "/"))
    _same(_authority(_only(hosts), 80), target)
    return target


def tunnelled_target(
    head: RequestHead,
    hosts: Sequence[str],
    host: CanonicalHost,
    port: int,
    scheme: Scheme = "https",
) -> Target:
    """The target of a request inside the tunnel to `host:port` that is for `scheme`."""
    if not head.target.startswith("/"):
        raise TargetRefused(
            Reason.AUTHORITY_MISMATCH if "://" in head.target else Reason.REQUEST_MALFORMED
        )
    named = _authority(_only(hosts), DEFAULT_PORTS[scheme])
    if named != (host, port):
        raise TargetRefused(Reason.AUTHORITY_MISMATCH)
    return Target(_method(head), scheme, host, port, *_path(head.target))


def stream_target(
    head: RequestHead, authority: str, hosts: Sequence[str], host: CanonicalHost, port: int
) -> Target:
    """The target of an HTTP/2 stream inside the tunnel to `host:port`: its `:authority`, and its
    Host where there is one, must name that too (RFC 9113 section 8.3.1)."""
    target = tunnelled_target(head, [authority], host, port)
    if len(hosts) > 1:
        raise TargetRefused(Reason.REQUEST_MALFORMED)
    for named in hosts:
        if _authority(named, 443) != (host, port):
            raise TargetRefused(Reason.AUTHORITY_MISMATCH)
    return target


def egress_request(kind: RequestKind, target: Target, requester: Requester) -> EgressRequest:
    """The request as the judge takes it."""
    return EgressRequest(
        kind=kind,
        method=target.method,
        scheme=target.scheme,
        host=target.host,
        port=target.port,
        path=target.path,
        query=target.query,
        requester=requester,
        websocket=target.websocket,
    )


def nominated(connection_values: Sequence[str]) -> frozenset[str]:
    """The header names that a Connection header declares hop-by-hop."""
    names = {token.strip().lower() for value in connection_values for token in value.split(",")} - {
        "",
        "close",
        "keep-alive",
    }
    if names & _NEVER_NOMINATED:
        raise TargetRefused(Reason.REQUEST_MALFORMED)
    return frozenset(names)


def _method(head: RequestHead) -> str:
    if _METHOD.fullmatch(head.method) is None or head.method in ("CONNECT", "TRACE"):
        raise TargetRefused(Reason.METHOD_MALFORMED)
    return head.method


def _only(hosts: Sequence[str]) -> str:
    if len(hosts) != 1:
        raise TargetRefused(Reason.REQUEST_MALFORMED if hosts else Reason.HOST_MISSING)
    return hosts[0]


def _authority(text: str, default_port: int | None) -> tuple[CanonicalHost, int]:
    try:
        return parse_authority(text, default_port)
    except HostRefused as refused:
        raise TargetRefused(refused.reason) from refused


def _same(named: tuple[CanonicalHost, int], target: Target) -> None:
    if named != (target.host, target.port):
        raise TargetRefused(Reason.AUTHORITY_MISMATCH, target)


def _path(text: str) -> tuple[str, str]:
    """Split at the first `?`; a fragment never travels."""
    if "#" in text:
        raise TargetRefused(Reason.PATH_MALFORMED)
    path, _, query = text.partition("?")
    if not path:
        path = "/"
    if not path.startswith("/"):
        raise TargetRefused(Reason.PATH_MALFORMED)
    return path, query
