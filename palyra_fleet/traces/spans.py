"""What the programs need of a tracing library, and every attribute that a span may have. Pure.

Attributes are those of OpenTelemetry's semantic conventions for HTTP where they have one, and stand
under `palyra.` elsewhere. There is no attribute for a query, a header, a body or a credential, so
none can be told. Times: Unix nanoseconds. Source: OpenTelemetry semantic conventions 1.37, HTTP
spans (read November 2026).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from palyra_fleet.traces.context import TraceContext

type Value = str | int | bool


class Attribute(StrEnum):
    """A fact about a span. Each has exactly one row in `MEANINGS`."""

    METHOD = "http.request.method"
    STATUS = "http.response.status_code"
    ROUTE = "http.route"
    SCHEME = "url.scheme"
    PATH = "url.path"
    SERVER = "server.address"
    PORT = "server.port"
    PEER = "network.peer.address"
    CLIENT = "client.address"
    ERROR = "error.type"
    DECISION_ID = "palyra.decision.id"
    REASON = "palyra.reason"
    EFFECT = "palyra.effect"
    CONSEQUENCE = "palyra.consequence"
    RULE_ID = "palyra.rule.id"
    POLICY_DIGEST = "palyra.policy.digest"
    WORKER_ID = "palyra.worker.id"
    LEASE_ID = "palyra.lease.id"
    RUN_ID = "palyra.run.id"
    PROFILE = "palyra.profile"
    OUTCOME = "palyra.outcome"
    BYTES_OUT = "palyra.bytes.out"
    BYTES_IN = "palyra.bytes.in"
    EVIDENCE_SEQ = "palyra.evidence.seq"
    PROXY = "palyra.proxy"
    REQUEST_ID = "palyra.request.id"
    CLAIMED = "palyra.claimed_by"


MEANINGS: Final[Mapping[Attribute, str]] = MappingProxyType(
    {
        Attribute.METHOD: "the request's or call's method; `_OTHER` where it is no method of HTTP",
        Attribute.STATUS: "the status it was answered with",
        Attribute.ROUTE: "a call's route at the fleet, with names in place of values",
        Attribute.SCHEME: "`http` or `https`",
        Attribute.PATH: "the path, as in the audit log: redacted, cut, never with a query",
        Attribute.SERVER: "the host that was asked for, in its canonical form",
        Attribute.PORT: "its port",
        Attribute.PEER: "the address that was dialled",
        Attribute.CLIENT: "where a call to the fleet came from",
        Attribute.ERROR: "why it went wrong: a reason code, or the status of a failed call",
        Attribute.DECISION_ID: "the proxy's verdict, as in audit log, evidence and console",
        Attribute.REASON: "the reason code",
        Attribute.EFFECT: "allow or deny",
        Attribute.CONSEQUENCE: "what a refusal costs the worker: none, strike or quarantine",
        Attribute.RULE_ID: "the deciding rule",
        Attribute.POLICY_DIGEST: "SHA-256 of the policy that judged",
        Attribute.WORKER_ID: "the worker it is about",
        Attribute.LEASE_ID: "its lease",
        Attribute.RUN_ID: "its run",
        Attribute.PROFILE: "the profile it was judged by",
        Attribute.OUTCOME: "how an exchange ended, or what the fleet did about evidence",
        Attribute.BYTES_OUT: "bytes of bodies and tunnels that the worker sent",
        Attribute.BYTES_IN: "and that it got",
        Attribute.EVIDENCE_SEQ: "the number of the evidence in its proxy's chain",
        Attribute.PROXY: "the proxy that judged, or that handed evidence in",
        Attribute.REQUEST_ID: "a call's id: what its answer carries as `Palyra-Request-Id`",
        Attribute.CLAIMED: "of a link: `worker`, whose word nobody checked",
    }
)

type Attributes = Mapping[Attribute, Value | None]
"""What is None is left out."""


class Kind(StrEnum):
    """Which side of what a span is, as OpenTelemetry calls it."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class SpanOutcome(StrEnum):
    """What became of a finished span. A closed set: a label of a metric."""

    SENT = "sent"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(slots=True)
class SpanCounts:
    """Finished spans by what became of them; what was not accepted found too many waiting."""

    accepted: int = 0
    sent: int = 0
    failed: int = 0
    dropped: int = 0

    @property
    def waiting(self) -> int:
        """Accepted, and neither taken by the receiver nor given up."""
        return self.accepted - self.sent - self.failed

    def by_outcome(self) -> dict[SpanOutcome, int]:
        return {
            SpanOutcome.SENT: self.sent,
            SpanOutcome.FAILED: self.failed,
            SpanOutcome.DROPPED: self.dropped,
        }


class OpenSpan(Protocol):
    """A span that was begun."""

    @property
    def context(self) -> TraceContext: ...

    def end(
        self, ended_unix_ns: int, attributes: Attributes | None = None, error: str | None = None
    ) -> None:
        """It is over; `error` says that it went wrong, and why (a code)."""


class Spans(Protocol):
    """Where spans go. Nothing here waits, and nothing fails."""

    @property
    def counts(self) -> SpanCounts: ...

    def is_sampled(self) -> bool:
        """Whether the next trace is exported: so many of all, by chance."""
        ...

    def begin(
        self,
        name: str,
        kind: Kind,
        began_unix_ns: int,
        attributes: Attributes,
        *,
        parent: TraceContext | None = None,
        claimed: TraceContext | None = None,
    ) -> OpenSpan:
        """A span of `parent`'s trace, or of a new one, with a link to what was merely `claimed`."""
        ...

    def close(self, within_s: float) -> None:
        """Send what waits, for so long at most. Blocks: call it in a thread."""


def known_method(method: str) -> str:
    """A method of HTTP, or `_OTHER`: names of spans come from a closed set."""
    return method if method in _METHODS else "_OTHER"


_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
