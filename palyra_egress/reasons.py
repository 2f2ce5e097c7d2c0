"""Every reason the egress side can give, in one table.

A reason is a stable code (`egress.host_not_allowed`), a class that says who caused it, the HTTP
status a worker sees, the RFC 9209 `Proxy-Status` error type, a title, and a hint that tells a
person what to do without telling a worker anything about the inside.

Invariants: a released spelling never changes; only the classes POLICY and THREAT may ever cost a
worker a strike or its freedom, so an outage quarantines nobody; every code has exactly one row.
Sources: RFC 9110 (status codes), RFC 9209 section 2.3 (proxy error types).
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ReasonClass(StrEnum):
    """Who caused the outcome. Only POLICY and THREAT can strike or quarantine."""

    ALLOWED = "allowed"
    POLICY = "policy"
    THREAT = "threat"
    INFRA = "infra"
    CLIENT = "client"


class Reason(StrEnum):
    """Stable reason codes. The part after the dot is what policy files name."""

    ALLOWED = "egress.allowed"
    OBSERVED = "egress.observed"
    # the worker asked for something the policy does not give
    HOST_NOT_ALLOWED = "egress.host_not_allowed"
    HOST_DENIED = "egress.host_denied"
    PORT_NOT_ALLOWED = "egress.port_not_allowed"
    SCHEME_NOT_ALLOWED = "egress.scheme_not_allowed"
    METHOD_NOT_ALLOWED = "egress.method_not_allowed"
    PATH_NOT_ALLOWED = "egress.path_not_allowed"
    RULE_EXPIRED = "egress.rule_expired"
    PROFILE_UNKNOWN = "egress.profile_unknown"
    PROFILE_REQUIREMENTS = "egress.profile_requirements"
    BUDGET_ZERO = "egress.budget_zero"
    BUDGET_SPENT = "egress.budget_spent"
    REQUEST_TOO_LARGE = "egress.request_too_large"
    RESPONSE_TOO_LARGE = "egress.response_too_large"
    RATE_LIMITED = "egress.rate_limited"
    CREDENTIAL_HEADER_NOT_ALLOWED = "egress.credential_header_not_allowed"
    CREDENTIAL_SOURCE_NOT_ALLOWED = "egress.credential_source_not_allowed"
    BODY_UNREADABLE = "egress.body_unreadable"
    PROTOCOL_NOT_SUPPORTED = "egress.protocol_not_supported"
    UPGRADE_NOT_ALLOWED = "egress.upgrade_not_allowed"
    # the worker sent something nobody should send
    SCHEME_UNSUPPORTED = "egress.scheme_unsupported"
    URL_CREDENTIALS = "egress.url_credentials"
    HOST_MISSING = "egress.host_missing"
    PORT_MISSING = "egress.port_missing"
    HOST_MALFORMED = "egress.host_malformed"
    NUMERIC_HOST = "egress.numeric_host"
    PATH_MALFORMED = "egress.path_malformed"
    METHOD_MALFORMED = "egress.method_malformed"
    REQUEST_MALFORMED = "egress.request_malformed"
    HEAD_TOO_LARGE = "egress.head_too_large"
    REQUEST_TIMEOUT = "egress.request_timeout"
    # what an attack looks like
    PRIVATE_TARGET = "egress.private_target"
    METADATA_TARGET = "egress.metadata_target"
    PROXY_TARGET = "egress.proxy_target"
    MIXED_ANSWER = "egress.mixed_answer"
    AUTHORITY_MISMATCH = "egress.authority_mismatch"
    SNI_MISSING = "egress.sni_missing"
    ECH_NOT_ALLOWED = "egress.ech_not_allowed"
    NON_HTTP_IN_TUNNEL = "egress.non_http_in_tunnel"
    FOREIGN_CREDENTIALS = "egress.foreign_credentials"
    CREDENTIAL_LEAK = "egress.credential_leak"
    CANARY = "egress.canary"
    LOOP = "egress.loop"
    # who is asking
    NO_IDENTITY = "egress.no_identity"
    BAD_CREDENTIALS = "egress.bad_credentials"
    NO_LEASE = "egress.no_lease"
    LEASE_EXPIRED = "egress.lease_expired"
    QUARANTINED = "egress.quarantined"
    IDENTITY_CHANGED = "egress.identity_changed"
    CERTIFICATE_NOT_BOUND = "egress.certificate_not_bound"
    # our own side, or the way there
    RESOLUTION_FAILED = "egress.resolution_failed"
    RESOLUTION_EMPTY = "egress.resolution_empty"
    RESOLUTION_TIMEOUT = "egress.resolution_timeout"
    UPSTREAM_UNREACHABLE = "egress.upstream_unreachable"
    UPSTREAM_TLS = "egress.upstream_tls"
    UPSTREAM_PROTOCOL = "egress.upstream_protocol"
    UPSTREAM_TIMEOUT = "egress.upstream_timeout"
    NOT_PINNED = "egress.not_pinned"
    CREDENTIAL_UNAVAILABLE = "egress.credential_unavailable"
    UPSTREAM_TLS_UNAVAILABLE = "egress.upstream_tls_unavailable"
    POLICY_NOT_LOADED = "egress.policy_not_loaded"
    POLICY_CHANGED = "egress.policy_changed"
    NOT_READY = "egress.not_ready"
    STOPPING = "egress.stopping"
    INTERNAL = "egress.internal"
    DEADLINE = "egress.deadline"
    AUDIT_UNAVAILABLE = "egress.audit_unavailable"
    TOO_MANY_CONNECTIONS = "egress.too_many_connections"
    VIEW_STALE = "fleet.view_stale"
    EPOCH_ROLLBACK = "fleet.epoch_rollback"
    EGRESS_SUSPENDED = "fleet.egress_suspended"
    EGRESS_FROZEN = "fleet.egress_frozen"

    @property
    def short(self) -> str:
        """The code without its prefix, as policy files and corpora write it."""
        return self.value.partition(".")[2]


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """One row: class, HTTP status, RFC 9209 error type, title (a phrase), hint (a sentence)."""

    reason_class: ReasonClass
    http_status: int
    proxy_status_error: str | None
    title: str
    hint: str


_ASK = "Ask the owner of the policy to allow it, or use a destination that is allowed."
_LATER = "This is not your fault; try again later."
_DENIED = "http_request_denied"
_ERROR = "http_request_error"
_INTERNAL = "proxy_internal_error"
_P, _T, _I, _C = ReasonClass.POLICY, ReasonClass.THREAT, ReasonClass.INFRA, ReasonClass.CLIENT
_R = Reason

REASONS: Final = MappingProxyType(
    {
        _R.ALLOWED: ReasonRow(ReasonClass.ALLOWED, 200, None, "allowed", ""),
        _R.OBSERVED: ReasonRow(ReasonClass.ALLOWED, 200, None, "would be refused", ""),
        _R.HOST_NOT_ALLOWED: ReasonRow(_P, 403, _DENIED, "no rule allows this host", _ASK),
        _R.HOST_DENIED: ReasonRow(_P, 403, _DENIED, "a deny rule names this host", _ASK),
        _R.PORT_NOT_ALLOWED: ReasonRow(_P, 403, _DENIED, "the port is not allowed", _ASK),
        _R.SCHEME_NOT_ALLOWED: ReasonRow(_P, 403, _DENIED, "the scheme is not allowed", _ASK),
        _R.METHOD_NOT_ALLOWED: ReasonRow(_P, 403, _DENIED, "the method is not allowed", _ASK),
        _R.PATH_NOT_ALLOWED: ReasonRow(_P, 403, _DENIED, "the path is not allowed", _ASK),
        _R.RULE_EXPIRED: ReasonRow(_P, 403, _DENIED, "the rule has expired", _ASK),
        _R.PROFILE_UNKNOWN: ReasonRow(_P, 403, _DENIED, "the lease's profile is unknown", _ASK),
        _R.PROFILE_REQUIREMENTS: ReasonRow(
            _P,
            403,
            _DENIED,
            "the worker is not what its profile requires",
            "Ask the owner of the policy what this profile requires of a worker.",
        ),
        _R.BUDGET_ZERO: ReasonRow(_P, 403, _DENIED, "the budget of this rule is zero", _ASK),
        _R.BUDGET_SPENT: ReasonRow(_P, 429, _DENIED, "the byte budget is spent", _ASK),
        _R.REQUEST_TOO_LARGE: ReasonRow(_P, 413, _DENIED, "the request body is too large", _ASK),
        _R.RESPONSE_TOO_LARGE: ReasonRow(_P, 502, _DENIED, "the response is too large", _ASK),
        _R.RATE_LIMITED: ReasonRow(_P, 429, _DENIED, "too many requests", "Slow down."),
        _R.CREDENTIAL_HEADER_NOT_ALLOWED: ReasonRow(
            _P, 403, _DENIED, "this header may not carry a credential", _ASK
        ),
        _R.CREDENTIAL_SOURCE_NOT_ALLOWED: ReasonRow(
            _P, 403, _DENIED, "this credential source is not allowed", _ASK
        ),
        _R.BODY_UNREADABLE: ReasonRow(
            _P,
            415,
            _DENIED,
            "the body is encoded so that it cannot be searched for secrets",
            "Send it without Content-Encoding, or whole and plain in gzip or deflate.",
        ),
        _R.PROTOCOL_NOT_SUPPORTED: ReasonRow(
            _P, 403, _DENIED, "this protocol is not carried", "Use HTTP/1.1 or HTTP/2 over TLS."
        ),
        _R.UPGRADE_NOT_ALLOWED: ReasonRow(
            _P,
            403,
            _DENIED,
            "this upgrade is not allowed",
            "Ask the owner of the policy whether a WebSocket is meant to be allowed here.",
        ),
        _R.SCHEME_UNSUPPORTED: ReasonRow(_C, 400, _ERROR, "the scheme is not http or https", ""),
        _R.URL_CREDENTIALS: ReasonRow(_C, 400, _ERROR, "the URL carries credentials", ""),
        _R.HOST_MISSING: ReasonRow(_C, 400, _ERROR, "the request names no host", ""),
        _R.PORT_MISSING: ReasonRow(_C, 400, _ERROR, "CONNECT needs an explicit port", ""),
        _R.HOST_MALFORMED: ReasonRow(_C, 400, _ERROR, "the host name is malformed", ""),
        _R.NUMERIC_HOST: ReasonRow(
            _C, 400, _ERROR, "the host is a numeric spelling that is not an address", ""
        ),
        _R.PATH_MALFORMED: ReasonRow(_C, 400, _ERROR, "the path is malformed or ambiguous", ""),
        _R.METHOD_MALFORMED: ReasonRow(_C, 400, _ERROR, "the method is malformed", ""),
        _R.REQUEST_MALFORMED: ReasonRow(_C, 400, _ERROR, "the request is malformed", ""),
        _R.HEAD_TOO_LARGE: ReasonRow(_C, 431, _ERROR, "the request head is too large", ""),
        _R.REQUEST_TIMEOUT: ReasonRow(
            _C, 408, _ERROR, "the request did not come in time", "Send it without long pauses."
        ),
        _R.PRIVATE_TARGET: ReasonRow(
            _T, 403, "destination_ip_prohibited", "the target is a private address", _ASK
        ),
        _R.METADATA_TARGET: ReasonRow(
            _T, 403, "destination_ip_prohibited", "the target is a platform address", ""
        ),
        _R.PROXY_TARGET: ReasonRow(
            _T, 403, "destination_ip_prohibited", "the target is the proxy or the fleet", ""
        ),
        _R.MIXED_ANSWER: ReasonRow(
            _T, 403, "destination_ip_prohibited", "the name has private and public addresses", _ASK
        ),
        _R.AUTHORITY_MISMATCH: ReasonRow(
            _T, 421, _DENIED, "CONNECT, SNI, Host and URL do not agree", ""
        ),
        _R.SNI_MISSING: ReasonRow(_P, 403, _DENIED, "the TLS handshake names no server", ""),
        _R.ECH_NOT_ALLOWED: ReasonRow(
            _P, 403, _DENIED, "the TLS handshake hides which server it is for", _ASK
        ),
        _R.NON_HTTP_IN_TUNNEL: ReasonRow(_T, 403, _DENIED, "the tunnel carries no HTTP", ""),
        _R.FOREIGN_CREDENTIALS: ReasonRow(
            _T, 403, _DENIED, "the credentials belong to another worker", ""
        ),
        _R.CREDENTIAL_LEAK: ReasonRow(_T, 403, _DENIED, "a bound secret leaves in clear", ""),
        _R.CANARY: ReasonRow(_T, 403, _DENIED, "a canary token leaves", ""),
        _R.LOOP: ReasonRow(_C, 508, "proxy_loop_detected", "the request passed here before", ""),
        _R.NO_IDENTITY: ReasonRow(
            _C, 407, None, "proxy credentials are needed", "Send the lease's proxy credentials."
        ),
        _R.BAD_CREDENTIALS: ReasonRow(
            _C, 407, None, "the proxy credentials are not valid", "Ask for a new lease."
        ),
        _R.NO_LEASE: ReasonRow(_P, 403, _DENIED, "no live lease", "Ask for a new lease."),
        _R.LEASE_EXPIRED: ReasonRow(_P, 403, _DENIED, "the lease has ended", "Renew the lease."),
        _R.QUARANTINED: ReasonRow(
            _P, 403, _DENIED, "the worker is quarantined", "Only an operator can release it."
        ),
        _R.IDENTITY_CHANGED: ReasonRow(
            _C, 403, _DENIED, "one connection carries one identity", "Open a new connection."
        ),
        _R.CERTIFICATE_NOT_BOUND: ReasonRow(
            _C,
            403,
            _DENIED,
            "the client certificate is not one of this lease",
            "Use the certificate that the fleet knows for this worker.",
        ),
        _R.RESOLUTION_FAILED: ReasonRow(_I, 502, "dns_error", "the name did not resolve", _LATER),
        _R.RESOLUTION_EMPTY: ReasonRow(_I, 502, "dns_error", "the name has no address", _LATER),
        _R.RESOLUTION_TIMEOUT: ReasonRow(
            _I, 504, "dns_timeout", "the name did not resolve in time", _LATER
        ),
        _R.UPSTREAM_UNREACHABLE: ReasonRow(
            _I, 502, "destination_unavailable", "the server did not answer", _LATER
        ),
        _R.UPSTREAM_TLS: ReasonRow(
            _I, 502, "tls_certificate_error", "the server's TLS could not be verified", _LATER
        ),
        _R.UPSTREAM_PROTOCOL: ReasonRow(
            _I, 502, "http_protocol_error", "the server's answer is not valid", _LATER
        ),
        _R.UPSTREAM_TIMEOUT: ReasonRow(
            _I, 504, "http_response_timeout", "the server took too long", _LATER
        ),
        _R.NOT_PINNED: ReasonRow(_I, 502, _INTERNAL, "the address was not judged", _LATER),
        _R.CREDENTIAL_UNAVAILABLE: ReasonRow(
            _I, 503, _INTERNAL, "a credential of this rule is missing on our side", _LATER
        ),
        _R.UPSTREAM_TLS_UNAVAILABLE: ReasonRow(
            _I, 503, _INTERNAL, "roots or a certificate of this rule are missing here", _LATER
        ),
        _R.POLICY_NOT_LOADED: ReasonRow(_I, 503, _INTERNAL, "no policy is loaded", _LATER),
        _R.POLICY_CHANGED: ReasonRow(
            _I, 503, _INTERNAL, "the policy has changed", "Open a new connection."
        ),
        _R.NOT_READY: ReasonRow(_I, 503, _INTERNAL, "the proxy is starting", _LATER),
        _R.STOPPING: ReasonRow(_I, 503, _INTERNAL, "the proxy is stopping", _LATER),
        _R.INTERNAL: ReasonRow(_I, 500, _INTERNAL, "the proxy failed and refused", _LATER),
        _R.DEADLINE: ReasonRow(_I, 504, _INTERNAL, "the proxy took too long and refused", _LATER),
        _R.AUDIT_UNAVAILABLE: ReasonRow(_I, 503, _INTERNAL, "the audit log is full", _LATER),
        _R.TOO_MANY_CONNECTIONS: ReasonRow(
            _I, 503, "connection_limit_reached", "too many connections", "Close some first."
        ),
        _R.VIEW_STALE: ReasonRow(_I, 503, _INTERNAL, "the fleet's view is stale", _LATER),
        _R.EPOCH_ROLLBACK: ReasonRow(_I, 503, _INTERNAL, "the fleet went back in time", _LATER),
        _R.EGRESS_SUSPENDED: ReasonRow(
            _I, 503, _INTERNAL, "the fleet does not hear this worker's proxy", _LATER
        ),
        _R.EGRESS_FROZEN: ReasonRow(_I, 503, _INTERNAL, "an operator froze all egress", _LATER),
    }
)


def row(reason: Reason) -> ReasonRow:
    """The table row of a reason. Total: a test proves that every code has one."""
    return REASONS[reason]
