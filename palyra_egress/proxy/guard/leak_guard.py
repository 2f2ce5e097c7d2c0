"""One connection's part in leak detection: what its requests may not hold, and who is told.

`look` looks through a request before it is judged, so nothing of it leaves, is resolved or is
written down in clear. `BodyLook` looks through a body while it passes. What the proxy itself adds
is put on after that, so a bound secret in its own header is no leak; the worker's sending the same
secret, to the same host or another, is one. Of the lease's own credential only the beginning is
remembered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mitmproxy import http

from palyra_egress.credentials.inflate import coding_of
from palyra_egress.credentials.leak_detector import LEASE_BEGINNING, lease_patterns
from palyra_egress.credentials.patterns import Finding, PatternSet
from palyra_egress.credentials.request_scan import (
    Leak,
    find_in_headers,
    find_in_target,
    redacted,
)
from palyra_egress.credentials.stream_scan import StreamScanner
from palyra_egress.proxy.connections import LiveConnection
from palyra_egress.proxy.core import EnforcementCore
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest

type BodyTaker = Callable[[bytes], bytes | Reason]


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of looking through a request: its refusal, or what looks through its body."""

    refusal: Judgement | None
    body: BodyTaker | None = None


@dataclass(slots=True)
class BodyLook:
    """One request body. `report` audits a leak, and does to the worker what the policy says."""

    scanner: StreamScanner
    report: Callable[[Leak], Judgement]

    def take(self, data: bytes) -> bytes | Reason:
        """What may leave after these bytes (none: the body has ended), or why it must be cut."""
        passage = self.scanner.push(data) if data else self.scanner.finish()
        if passage.stop is None:
            return passage.data
        finding = passage.stop if isinstance(passage.stop, Finding) else None
        reason = Reason.BODY_UNREADABLE if finding is None else finding.reason
        return self.report(Leak(reason, "body", finding)).reason


class LeakGuard:
    """Asked by the guard of one connection."""

    def __init__(self, core: EnforcementCore, speaker: LiveConnection) -> None:
        self._core = core
        self._speaker = speaker
        self._lease_beginning = ""

    def remember(self, egress_secret: str) -> None:
        """The beginning of the credential that this connection's worker has shown."""
        self._lease_beginning = egress_secret[:LEASE_BEGINNING]

    def look(self, request: EgressRequest, sent: http.Request | None, has_body: bool) -> Looked:
        """Look through a request for what may not leave. `sent` is the request as it came, None for
        CONNECT, whose headers end at the proxy."""
        if not self._core.leaks.watch(self._core.service.policy).is_complete:
            reason = Reason.CREDENTIAL_UNAVAILABLE
            return Looked(self._core.refuse(self.redacted(request), reason, self._speaker))
        found = self._found(request, sent, has_body)
        return (
            Looked(self._report(request, found)) if isinstance(found, Leak) else Looked(None, found)
        )

    def look_at_trailers(self, request: EgressRequest, trailers: http.Headers) -> Judgement | None:
        """Refuse trailers with something in them that may not leave, or None."""
        finding = find_in_headers(self._sets(), trailers.fields)
        return (
            None
            if finding is None
            else self._report(request, Leak(finding.reason, "trailers", finding))
        )

    def new_scanner(self) -> StreamScanner | None:
        """What looks through one message that leaves; None where there is nothing to look for."""
        sets = self._sets()
        return StreamScanner(sets) if sets else None

    def redacted(self, request: EgressRequest) -> EgressRequest:
        """The request as it may be written down."""
        return redacted(self._sets(), request)

    def _report(self, request: EgressRequest, leak: Leak) -> Judgement:
        return self._core.refuse_leak(self.redacted(request), leak, self._speaker)

    def _sets(self) -> tuple[PatternSet, ...]:
        watch = self._core.leaks.watch(self._core.service.policy)
        if not watch.with_lease or not self._lease_beginning:
            return watch.sets
        return (*watch.sets, lease_patterns(self._lease_beginning))

    def _found(
        self, request: EgressRequest, sent: http.Request | None, has_body: bool
    ) -> Leak | BodyTaker | None:
        """A leak, or what looks through the body; None where there is nothing to look for."""
        sets = self._sets()
        if not sets:
            return None
        if (finding := find_in_target(sets, request)) is not None:
            return Leak(finding.reason, "target", finding)
        if sent is None:
            return None
        if (finding := find_in_headers(sets, sent.headers.fields)) is not None:
            return Leak(finding.reason, "headers", finding)
        if not has_body:
            return None
        coding = coding_of(sent.headers.get_all("content-encoding"))
        if coding is None:
            return Leak(Reason.BODY_UNREADABLE, "body")
        return BodyLook(StreamScanner(sets, coding), partial(self._report, request)).take
