"""One allowed exchange: what was granted, sealed, and how many bytes each way. No I/O.

The seal is a copy of everything of the request that decides where it goes and what the judge saw;
it is compared again before the request leaves, so nothing can be changed after the verdict.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Self

from mitmproxy import http

from palyra_egress.credentials.injection import Injected
from palyra_egress.credentials.request_scan import ENDS_HERE
from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.bounds.silence import Progress, Silence
from palyra_egress.proxy.http.canonical import HOP_BY_HOP, Target, nominated
from palyra_egress.proxy.http.credential_headers import is_verified, redact_echo, with_injected
from palyra_egress.proxy.http.denial import PROXY_NAME, REFUSED
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.websocket.websocket import WebSocket
from palyra_egress.proxy.websocket.websocket_handshake import opened_head, opens
from palyra_egress.reasons import Reason

VIA = f"1.1 {PROXY_NAME}"
VIA_HTTP2 = f"2 {PROXY_NAME}"
MAX_INTERIM: Final = 16  # 1xx responses of one exchange
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

type _Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, repr=False)
class Seal:
    """The request as it was granted, without its credentials. Expect is left out: mitmproxy
    answers it and removes it."""

    method: bytes
    scheme: bytes
    host: str
    port: int
    path: bytes
    authority: bytes
    http_version: bytes
    headers: _Fields
    buffered: bytes
    trailers: _Fields

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
            tuple(field for field in data.headers.fields if field[0].lower() != b"expect"),
            data.content or b"",
            data.trailers.fields if data.trailers else (),
        )


@dataclass(slots=True)
class Exchange:
    """An allowed request and its response, from the grant to the end.

    `spend` counts bytes against the hours that hold and says whether they have room; `cut` ends the
    exchange; `injected` are the credentials it leaves with; `look_through` says what of its body
    may leave, or why it must end; `wants_trailers` that its worker reads trailers (`te: trailers`);
    `promises_end` that its head says how it ends, unlike a stream of HTTP/2 that names no length;
    `socket` what it goes on as, if its server agrees; `has_left` that its head was written,
    `has_whole_request` that its worker owes nothing of it any more, `has_answer` that the head of
    its response is there; `unanswered_since_ms` (monotonic) when all
    of the request was written, until then.
    The meters are the stream callbacks of request and response: they pass data on, or give `[]`
    (nothing now; `b""` would end a chunked body) once it is over.
    """

    flow_id: str
    target: Target
    judgement: Judgement
    seal: Seal
    started_monotonic_ms: int
    spend: Callable[[Direction, int], bool]
    cut: Callable[[Reason], None]
    injected: tuple[Injected, ...] = ()
    look_through: Callable[[bytes], bytes | Reason] | None = None
    wants_trailers: bool = False
    promises_end: bool = True
    socket: WebSocket | None = None
    has_left: bool = False
    has_whole_request: bool = False
    has_answer: bool = False
    unanswered_since_ms: int | None = None
    ended: bool = False
    interim_count: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    silence: Silence = field(init=False)

    def __post_init__(self) -> None:
        self.silence = Silence(self.started_monotonic_ms)

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return Progress(
            self.request_bytes,
            self.response_bytes,
            self.has_whole_request,
            self.has_answer,
            self.promises_end,
            self.unanswered_since_ms is not None,
        )

    def meter_request(self, data: bytes) -> bytes | list[bytes]:
        passed = self.meter_bytes_out(data)
        if self.look_through is None or isinstance(passed, list):
            return passed
        leaves = self.look_through(data)
        if isinstance(leaves, Reason):
            self.cut(leaves)
            return []
        return leaves or []

    def meter_response(self, data: bytes) -> bytes | list[bytes]:
        within = self.take_response(len(data))
        return self._pass(data, Direction.IN, within, Reason.RESPONSE_TOO_LARGE)

    def meter_frames(self, data: bytes, *, from_worker: bool) -> bool:
        """Count bytes of an open socket; False once it is over."""
        meter = self.meter_bytes_out if from_worker else self.meter_response
        return not isinstance(meter(data), list)

    def meter_bytes_out(self, data: bytes) -> bytes | list[bytes]:
        """Outbound bytes that are looked through elsewhere."""
        within = self.take_request(len(data))
        return self._pass(data, Direction.OUT, within, Reason.REQUEST_TOO_LARGE)

    def _pass(
        self, data: bytes, direction: Direction, within: bool, over: Reason
    ) -> bytes | list[bytes]:
        crossed = None if within else over
        if not self.spend(direction, len(data)):
            crossed = crossed or Reason.BUDGET_SPENT
        if crossed is not None:
            self.cut(crossed)
        return [] if self.ended or crossed is not None else data

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
        return Seal.of(request) == self.seal and request.stream == self.meter_request

    def take_trailers(self, trailers: http.Headers) -> None:
        """These trailers came from the worker and were looked at: they belong to the seal."""
        self.seal = replace(self.seal, trailers=trailers.fields)

    def leaving(self, request: http.Request, server: object) -> http.Request | None:
        """What is written to `server` for the granted request: itself, or a copy that holds its
        credentials; None if that server may not see them."""
        if self.socket is not None and getattr(server, "alpn", None) == b"h2":
            return None  # no Upgrade in HTTP/2 (RFC 9113 section 8.6)
        tls = self.judgement.server_tls
        needs_verified = bool(self.injected) or (tls is not None and bool(tls.names.named))
        if needs_verified and not is_verified(server, self.target):
            return None
        return with_injected(request, self.injected) if self.injected else request

    def admit_interim(self, response: http.Response) -> bool:
        """Make an interim response what the worker may see, or say that it sees none of it. Those
        beyond the bound are bytes like any other: without them a server sends for ever for free."""
        self.interim_count += 1
        if self.interim_count > MAX_INTERIM:
            self.meter_response(_head_bytes(response))
        if (
            self.ended
            or self.interim_count > MAX_INTERIM
            or not is_well_formed(response, interim=True)
        ):
            return False
        only_hints = [field for field in response.headers.fields if field[0].lower() == b"link"]
        response.headers.fields = tuple(only_hints)
        if self.injected:
            redact_echo(response, self.injected)
        return bool(response.headers.fields)

    def admit(self, request: http.Request, response: http.Response) -> Reason | None:
        """Make a response's head what the worker may see, or say why it may see none of it."""
        self.has_answer, self.unanswered_since_ms = True, None
        if (trace := self.judgement.trace) is not None:
            trace.answered(response.status_code)
        limit = self.judgement.limits.max_response_bytes
        switches = response.status_code == 101
        if not is_well_formed(response, interim=switches) or speaks_for_us(response):
            return Reason.UPSTREAM_PROTOCOL
        if switches and (self.socket is None or not opens(self.socket.offer, response)):
            return Reason.UPSTREAM_PROTOCOL
        if limit is not None and body_length(request, response) > limit:
            return Reason.RESPONSE_TOO_LARGE
        returnable(request, response)
        if self.injected:
            redact_echo(response, self.injected)
        if switches and self.socket is not None:
            opened_head(response.headers)
            self.socket.is_open = True
        response.stream = self.meter_response
        return None


def _head_bytes(response: http.Response) -> bytes:
    """The fields of a head, about as long as they were on their way."""
    return b"\r\n".join(name + b": " + value for name, value in response.headers.fields) + b"\r\n"


def is_as_read(request: http.Request, target: Target, version: bytes = b"HTTP/1.") -> bool:
    """Whether the parsed request says what the checked head said, which is what is judged, in the
    version (or how it begins) that the connection speaks."""
    data = request.data
    path, _, query = data.path.partition(b"?")
    return (data.method, path, query, data.http_version.startswith(version)) == (
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
        if name in dropped or name.startswith(ENDS_HERE):
            del headers[name]
    if closes:
        headers["Connection"] = "close"
    if "transfer-encoding" in headers:
        headers["Transfer-Encoding"] = "chunked"  # the one spelling that every server reads alike
    headers["Host"] = target.host_header
    vias = [*headers.get_all("via"), VIA_HTTP2 if request.is_http2 else VIA]
    headers["Via"] = ", ".join(vias)
    data = request.data
    data.host, data.port = target.host, target.port
    data.scheme, data.authority = target.scheme.encode(), b""


def has_no_body(request: http.Request, response: http.Response) -> bool:
    """Whether the response ends with its head, whatever its framing headers say."""
    return request.method == "HEAD" or response.status_code in (204, 304)


def body_length(request: http.Request, response: http.Response) -> int:
    """The declared length of the body that comes, 0 where there is none or it is not declared."""
    if has_no_body(request, response):
        return 0
    return int(response.headers.get("content-length", "0"))


def is_well_formed(response: http.Response, *, interim: bool = False) -> bool:
    """Whether every client reads this head as we do: a final status (or an interim one), no control
    character (a bare CR ends a line for some), no fold, and no transfer coding but chunked."""
    data = response.data
    codings = response.headers.get_all("transfer-encoding")
    return (
        data.http_version in (b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0")
        and (100 <= data.status_code <= 199 if interim else 200 <= data.status_code <= 599)
        and _FIELD_VALUE.fullmatch(data.reason) is not None
        and all(_FIELD_VALUE.fullmatch(value) for _, value in data.headers.fields)
        and all(coding.lower() == "chunked" for coding in codings)
    )


def speaks_for_us(response: http.Response) -> bool:
    """Whether a server answers in the proxy's words: 407 is a proxy's alone (RFC 9110 section
    15.5.8), and the phrase of a refusal is what many clients show of it."""
    data = response.data
    return data.status_code == 407 or data.reason.strip().lower().startswith(REFUSED.encode())


def returnable(request: http.Request, response: http.Response) -> None:
    """Take out of a response what must not reach the worker: hop-by-hop, proxy and Alt-Svc, and
    the framing of a body that does not come."""
    headers = response.headers
    if has_no_body(request, response):
        headers.pop("transfer-encoding", None)
    if response.status_code == 204:
        headers.pop("content-length", None)
    named = {
        token.strip().lower()
        for value in headers.get_all("connection")
        for token in value.split(",")
    } - {"close", "content-length", "transfer-encoding", "content-type"}
    closes = "close" in headers.get("connection", "").lower()
    for name in {name.lower() for name in headers}:
        if name in HOP_BY_HOP or name in named or name.startswith(ENDS_HERE):
            del headers[name]
    if closes:
        headers["Connection"] = "close"


def never_forwarded(headers: http.Headers) -> Reason | None:
    """Requests that no policy can allow: loops, and transfer codings that a server may not know and
    then take the body for a second request."""
    if any(coding.lower() != "chunked" for coding in headers.get_all("transfer-encoding")):
        return Reason.REQUEST_MALFORMED
    if any(PROXY_NAME in value for value in headers.get_all("via")):
        return Reason.LOOP
    return None


def body_may_follow(request: http.Request) -> bool:
    """Whether the client may still be sending a body when the head has been read."""
    return "transfer-encoding" in request.headers or (
        request.headers.get("content-length", "0").strip() != "0"
    )
