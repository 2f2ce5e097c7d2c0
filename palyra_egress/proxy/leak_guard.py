"""One connection's part in leak detection: what its requests may not hold, and who is told.

`refusal` looks through a request before it is judged, so nothing of it leaves, is resolved or is
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
from palyra_egress.proxy.core import EnforcementCore, Judgement
from palyra_egress.proxy.exchange import body_may_follow
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest


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
        self._body: Callable[[bytes], bytes | Reason] | None = None

    def remember(self, egress_secret: str) -> None:
        """The beginning of the credential that this connection's worker has shown."""
        self._lease_beginning = egress_secret[:LEASE_BEGINNING]

    def refusal(self, request: EgressRequest, sent: http.Request | None) -> Judgement | None:
        """Refuse a request with something in it that may not leave, or None. `sent` is the request
        as it came, None for CONNECT, whose headers end at the proxy."""
        self._body = None
        if not self._core.leaks.watch(self._core.service.policy).is_complete:
            return self._core.refuse(
                self.redacted(request), Reason.CREDENTIAL_UNAVAILABLE, self._speaker
            )
        leak = self._leak(request, sent)
        return None if leak is None else self._report(request, leak)

    @property
    def body(self) -> Callable[[bytes], bytes | Reason] | None:
        """What looks through the body of the request that was looked at last; None where there is
        nothing to look for."""
        return self._body

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

    def _leak(self, request: EgressRequest, sent: http.Request | None) -> Leak | None:
        sets = self._sets()
        if not sets:
            return None
        if (finding := find_in_target(sets, request)) is not None:
            return Leak(finding.reason, "target", finding)
        if sent is None:
            return None
        if (finding := find_in_headers(sets, sent.headers.fields)) is not None:
            return Leak(finding.reason, "headers", finding)
        if body_may_follow(sent):
            coding = coding_of(sent.headers.get_all("content-encoding"))
            if coding is None:
                return Leak(Reason.BODY_UNREADABLE, "body")
            look = BodyLook(StreamScanner(sets, coding), partial(self._report, request))
            self._body = look.take
        return None
