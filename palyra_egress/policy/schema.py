"""The model of a policy file: what its author may write, as typed values with their lines.

Made only by `policy.reader` out of a positioned document, and then compiled. Units: sizes in bytes,
times in Unix milliseconds, windows in milliseconds, ports 1 to 65535. Every field here is enforced;
a field of the language that is not enforced yet has a row in `NOT_SUPPORTED_YET` and is refused
when a file is loaded, so that nobody trusts a control that is not there.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from palyra_egress.credentials.binding import CredentialBinding, SecretRef
from palyra_egress.destination.address_class import AddressRange
from palyra_egress.destination.hostpattern import HostPattern
from palyra_egress.facts import BindingLevel
from palyra_egress.policy.lint_codes import LintCode
from palyra_egress.policy.paths import PathPattern
from palyra_egress.policy.requirements import Requirements
from palyra_egress.reasons import REASONS, Reason, ReasonClass
from palyra_egress.request import Requester, RequestKind, Scheme
from palyra_egress.verdict import (
    INSPECTED,
    NO_LIMITS,
    USUAL_TLS,
    Carriage,
    Limits,
    TlsMode,
    UpstreamTls,
)
from palyra_fleet.strict_yaml.document import Position

LANGUAGE_VERSION: Final = 1
DEFAULT_METHODS: Final = ("GET", "HEAD")
"""What a rule without `methods` allows: reading. Writing is always spelled out."""
DEFAULT_SCHEMES: Final[tuple[Scheme, ...]] = ("https",)
SCHEME_PORT: Final[dict[Scheme, int]] = {"http": 80, "https": 443}
_PLAIN_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_DAV_METHODS: Final = ("COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "REPORT", "UNLOCK")
KNOWN_METHODS: Final = frozenset((*_PLAIN_METHODS, *_DAV_METHODS, "SEARCH"))
"""Methods a rule may name. CONNECT is judged by host and port; TRACE echoes credentials."""

SERVICE_PORTS: Final = {
    22: "SSH",
    23: "Telnet",
    25: "SMTP",
    53: "DNS",
    110: "POP3",
    139: "NetBIOS",
    143: "IMAP",
    389: "LDAP",
    445: "SMB",
    465: "SMTP",
    587: "SMTP",
    636: "LDAP",
    853: "DNS over TLS",
    993: "IMAP",
    995: "POP3",
    1433: "SQL Server",
    1521: "Oracle",
    2049: "NFS",
    2375: "Docker",
    2376: "Docker",
    2379: "etcd",
    3306: "MySQL",
    3389: "RDP",
    5432: "PostgreSQL",
    5900: "VNC",
    5984: "CouchDB",
    6379: "Redis",
    6443: "Kubernetes",
    6984: "CouchDB",
    8086: "InfluxDB",
    8088: "Hadoop",
    9042: "Cassandra",
    9092: "Kafka",
    9200: "Elasticsearch",
    9300: "Elasticsearch",
    10250: "kubelet",
    11211: "memcached",
    27017: "MongoDB",
    27018: "MongoDB",
    28017: "MongoDB",
    50070: "Hadoop",
}
"""Ports of databases, mail, remote access and control planes: named only when acknowledged."""

MAX_RATE: Final = 1_000_000
LEAST_LEVELS: Final = tuple(level.word for level in BindingLevel if level is not BindingLevel.NONE)
"""What a profile may demand; every worker has the level `none`."""
MAX_STRIKES: Final = 10_000
PENALISED: Final = frozenset({ReasonClass.POLICY, ReasonClass.THREAT})
PENALISED_WORDS: Final = tuple(
    sorted(reason.short for reason in Reason if REASONS[reason].reason_class in PENALISED)
)
"""Reasons that may cost a worker something; an outage or a clumsy client never does."""

NOT_SUPPORTED_YET: Final = {
    "top": {
        "extends": "inheritance of files; include unites them",
        "credentials": "credentials for every rule; each rule names its own",
        "audit": "audit options for every rule; each rule may say log_query: true",
    },
    "rule": {
        "upgrade": "other protocols than WebSocket, which has `websocket: true`",
        "upgrades": "other protocols than WebSocket, which has `websocket: true`",
        "require_sni": "SNI exceptions by this name; use missing_sni: true",
        "profiles": "naming profiles inside a rule",
    },
    "limits": {
        "bytes_per_minute": "byte rates by the minute; use bytes_per_hour",
        "bytes_per_day": "byte rates by the day; use bytes_per_hour",
        "requests_per_hour": "request rates by the hour; use requests_per_minute",
    },
}
"""Words of the language that this version refuses, with what they stand for."""


class Mode(StrEnum):
    """ENFORCE refuses; OBSERVE lets policy refusals pass and reports them as `would_deny`."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class Acknowledgement(StrEnum):
    """Things a rule may do only when it says that it means them."""

    WIDE_HOST = "wide_host"
    SINGLE_LABEL = "single_label"
    SERVICE_PORT = "service_port"


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One allow rule. `endpoints` are the (scheme, port) pairs it opens; `credentials` are in the
    order of their headers, each header once.

    `own_tls` is what the rule itself says; `carriage` is what holds once the whole policy is known.
    `inspected_keys` are the keys it writes that only an inspected tunnel can keep, and
    `upstream_tls_places` is where the names of `upstream_tls` stand, by their keys.
    """

    rule_id: str
    position: Position
    hosts: tuple[HostPattern, ...]
    endpoints: tuple[tuple[Scheme, int], ...]
    methods: tuple[str, ...]
    paths: tuple[PathPattern, ...] | None
    private: tuple[AddressRange, ...]
    until_unix_ms: int | None
    limits: Limits
    observe: bool
    encoded_slash: bool
    owner: str | None
    reason: str | None
    acknowledged: frozenset[Acknowledgement] = frozenset()
    file: str = ""
    credentials: tuple[CredentialBinding, ...] = ()
    own_tls: TlsMode | None = None
    carriage: Carriage = INSPECTED
    inspected_keys: tuple[tuple[str, Position], ...] = ()
    log_query: bool = False
    websocket: bool = False
    upstream_tls: UpstreamTls = USUAL_TLS
    upstream_tls_places: tuple[tuple[str, Position], ...] = ()

    @property
    def is_tunnelled(self) -> bool:
        return self.carriage.mode is TlsMode.TUNNEL


@dataclass(frozen=True, slots=True)
class DenySpec:
    """One deny rule, for every profile."""

    rule_id: str
    position: Position
    hosts: tuple[HostPattern, ...]
    reason: str | None
    file: str = ""


@dataclass(frozen=True, slots=True)
class CanarySpec:
    """One decoy that nobody may send, for every profile: a literal `value`, or the `secret` that
    holds it. `rule_id` is its id: in audit entries it stands where a rule's would."""

    rule_id: str
    position: Position
    value: str | None = field(repr=False)
    secret: SecretRef | None
    owner: str | None
    reason: str | None
    file: str = ""


@dataclass(frozen=True, slots=True)
class StrikeSpec:
    on: tuple[Reason, ...]
    limit: int
    window_ms: int


@dataclass(frozen=True, slots=True)
class ProfileSpec:
    """Which rules a lease gets, within which limits, and what its worker must be for that.

    `requires` None demands nothing.
    """

    name: str
    position: Position
    rule_ids: tuple[tuple[str, Position], ...]
    file: str = ""
    limits: Limits = NO_LIMITS
    requires: Requirements | None = None


@dataclass(frozen=True, slots=True)
class LintIgnore:
    """A finding that somebody decided to live with until a date; None means any subject."""

    position: Position
    code: LintCode
    rule_id: str | None
    profile: str | None
    reason: str
    until_unix_ms: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddedRequest:
    """What an embedded test asks, still as text; it is read as a stranger's request would be."""

    kind: RequestKind
    method: str
    target: str
    requester: Requester


@dataclass(frozen=True, slots=True)
class EmbeddedTest:
    """One test of the file. `resolved` None means one public address; `at_unix_ms` is its time;
    `expected_tls` None does not ask how the server is met."""

    position: Position
    request: EmbeddedRequest
    resolved: tuple[str, ...] | None
    at_unix_ms: int
    expect: str
    expected_reason: Reason | None
    file: str = ""
    expected_tls: UpstreamTls | None = None


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """A whole policy.

    `files` are the names of its files in the order they were read, `file` itself last. Every part
    says in which `file` it stands; its position is a place in that file.
    """

    file: str
    name: str
    mode: Mode
    limits: Limits
    rules: tuple[RuleSpec, ...]
    deny: tuple[DenySpec, ...]
    quarantine: tuple[Reason, ...]
    strike: StrikeSpec | None
    profiles: tuple[ProfileSpec, ...]
    tests: tuple[EmbeddedTest, ...]
    ignores: tuple[LintIgnore, ...] = ()
    mode_position: Position | None = None
    files: tuple[str, ...] = ()
    tls: TlsMode = TlsMode.INSPECT
    canaries: tuple[CanarySpec, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """One file of a policy as it was read, before its references are looked at.

    `settings` are the places of what may be set in one file of a policy only, by dotted name.
    `meant` are the keys of its top that are misspelt: what stands under them was not read.
    """

    spec: PolicySpec
    includes: tuple[tuple[str, Position], ...]
    settings: dict[str, Position]
    meant: frozenset[str] = frozenset()


def _stricter(own: int | None, other: int | None, default: int | None) -> int | None:
    given = [limit for limit in (own, other) if limit is not None]
    return min(given) if given else default


def effective_limits(rule: Limits, profile: Limits, defaults: Limits) -> Limits:
    """The sizes that hold for a rule in a profile, with the rule's own rates.

    Where rule and profile both set a size the smaller holds; the file's is for where neither does.
    Rates are not merged: those of file, profile and rule all hold at once.
    """
    return replace(
        rule,
        max_request_bytes=_stricter(
            rule.max_request_bytes, profile.max_request_bytes, defaults.max_request_bytes
        ),
        max_response_bytes=_stricter(
            rule.max_response_bytes, profile.max_response_bytes, defaults.max_response_bytes
        ),
    )


def is_budget_zero(rule: Limits, profile: Limits, defaults: Limits) -> bool:
    """True if no byte of a response may ever pass: then nothing is allowed at all."""
    hours = (
        hour
        for limits in (rule, profile, defaults)
        for hour in (limits.bytes_per_hour, limits.response_bytes_per_hour)
    )
    sizes = effective_limits(rule, profile, defaults)
    return sizes.max_response_bytes == 0 or 0 in hours
