"""One allowed exchange: what was granted, sealed, and how many bytes each way. No I/O.

The seal is a copy of everything of the request that decides where it goes and what the judge saw;
it is compared again before the request leaves, so nothing can be changed after the verdict.
"""

from dataclasses import dataclass
from typing import Self

from mitmproxy import http

from palyra_egress.proxy.canonical import HOP_BY_HOP, Target, nominated
from palyra_egress.proxy.core import Judgement
from palyra_egress.proxy.denial import PROXY_NAME
from palyra_egress.reasons import Reason

VIA = f"1.1 {PROXY_NAME}"

type _Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Seal:
    """The request as it was granted."""

    method: bytes
    scheme: bytes
    host: str
    port: int
    path: bytes
    authority: bytes
    http_version: bytes
    headers: _Fields
    buffered: bytes
    has_trailers: bool

    @classmethod
    def of(cls, request: http.Request) -> Self:
        data = request.data
        return cls(
            data.method,
            data.scheme,
            data.host,
            data.port,
            data.path,
            data.authority,
            data.http_version,
            data.headers.fields,
            data.content or b"",
            bool(data.trailers),
        )


@dataclass(slots=True)
class Exchange:
    """An allowed request and its response, from the grant to the end."""

    flow_id: str
    target: Target
    judgement: Judgement
    seal: Seal
    started_monotonic_ms: int
    request_meter: object = None
    request_bytes: int = 0
    response_bytes: int = 0

    def take_request(self, count: int) -> bool:
        """Count outbound body bytes; False once the budget is crossed."""
        self.request_bytes += count
        limit = self.judgement.limits.max_request_bytes
        return limit is None or self.request_bytes <= limit

    def take_response(self, count: int) -> bool:
        """Count inbound body bytes; False once the budget is crossed."""
        self.response_bytes += count
        limit = self.judgement.limits.max_response_bytes
        return limit is None or self.response_bytes <= limit

    def holds(self, request: http.Request) -> bool:
        """Whether this is still the granted request, with its meter."""
        return Seal.of(request) == self.seal and request.stream is self.request_meter


def is_as_read(request: http.Request, target: Target) -> bool:
    """Whether the parsed request says what the checked head said, which is what is judged."""
    data = request.data
    path, _, query = data.path.partition(b"?")
    return (data.method, path, query, data.http_version.startswith(b"HTTP/1.")) == (
        target.method.encode(),
        target.path.encode(),
        target.query.encode(),
        True,
    )


def forwardable(request: http.Request, target: Target) -> None:
    """Make the request what will leave: canonical target, Host, and nothing that ends here."""
    headers = request.headers
    dropped = HOP_BY_HOP | nominated(headers.get_all("connection"))
    closes = "close" in headers.get("connection", "").lower()
    for name in {name.lower() for name in headers}:
        if name in dropped or name.startswith("proxy-"):
            del headers[name]
    if closes:
        headers["Connection"] = "close"
    headers["Host"] = target.host_header
    vias = [*headers.get_all("via"), VIA]
    headers["Via"] = ", ".join(vias)
    data = request.data
    data.host, data.port = target.host, target.port
    data.scheme, data.authority = target.scheme.encode(), b""


def returnable(response: http.Response) -> None:
    """Take out of a response what must not reach the worker: hop-by-hop, proxy and Alt-Svc."""
    headers = response.headers
    named = {
        token.strip().lower()
        for value in headers.get_all("connection")
        for token in value.split(",")
    } - {"close", "content-length", "transfer-encoding", "content-type"}
    closes = "close" in headers.get("connection", "").lower()
    for name in {name.lower() for name in headers}:
        if name in HOP_BY_HOP or name in named or name.startswith("proxy-"):
            del headers[name]
    if closes:
        headers["Connection"] = "close"


def never_forwarded(headers: http.Headers) -> Reason | None:
    """Requests that no policy can allow yet, or ever: upgrades and loops."""
    if "upgrade" in headers:
        return Reason.UPGRADE_NOT_ALLOWED
    if any(PROXY_NAME in value for value in headers.get_all("via")):
        return Reason.LOOP
    return None


def body_may_follow(request: http.Request) -> bool:
    """Whether the client may still be sending a body when the head has been read."""
    return "transfer-encoding" in request.headers or (
        request.headers.get("content-length", "0").strip() != "0"
    )
