"""What the judge answers.

`NeedsResolution` says that a rule could allow the request and which name to resolve; a refused name
never gets that far, so it causes no DNS query. A `Verdict` is final. The zero value of every field
that matters denies: there is no default effect.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from palyra_egress.credentials.binding import CredentialBinding
from palyra_egress.reasons import REASONS, Reason, ReasonClass
from palyra_egress.request import CanonicalHost


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Consequence(StrEnum):
    """What the policy says a refusal costs the worker, weakest first."""

    NONE = "none"
    STRIKE = "strike"
    QUARANTINE = "quarantine"


class TlsMode(StrEnum):
    INSPECT = "inspect"
    TUNNEL = "tunnel"


@dataclass(frozen=True, slots=True)
class Carriage:
    """How the tunnel behind an allowed CONNECT is carried, and with which ClientHello it may begin.

    `missing_sni`: the ClientHello may name no server. `ech`: it may hold an encrypted ClientHello,
    real or GREASE; asked for only where the proxy does not end TLS itself.
    """

    mode: TlsMode = TlsMode.INSPECT
    missing_sni: bool = False
    ech: bool = False


INSPECTED: Final = Carriage()


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How the server behind an allowed request is met, by names that the proxy knows; no material.

    `roots` is what it is verified against instead of the proxy's bundle; `client_certificate` is
    what the proxy shows where the server asks. None is what holds for rules that say nothing.
    """

    roots: str | None = None
    client_certificate: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """What is named, by the key that names it."""
        given = (("roots", self.roots), ("client_certificate", self.client_certificate))
        return {key: name for key, name in given if name is not None}

    def __str__(self) -> str:
        """In words, as `explain` and `diff` tell it."""
        roots = "the public roots" if self.roots is None else f"the roots {self.roots} alone"
        shown = self.client_certificate
        return f"verified by {roots}, shown " + (
            "no certificate" if shown is None else f"the certificate {shown}"
        )


USUAL_TLS: Final = UpstreamTls()


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets as a rule, a profile or a file sets them; None means that it sets none.

    The first two are of one request. The others are rates of one worker, bytes of bodies: both ways
    together, out, and in.
    """

    max_request_bytes: int | None = None
    max_response_bytes: int | None = None
    requests_per_minute: int | None = None
    bytes_per_hour: int | None = None
    request_bytes_per_hour: int | None = None
    response_bytes_per_hour: int | None = None

    @property
    def counts_bytes(self) -> bool:
        hours = (*self.outward_hours, self.response_bytes_per_hour)
        return any(hour is not None for hour in hours)

    @property
    def outward_hours(self) -> tuple[int | None, int | None]:
        """The rates that bound what a worker sends."""
        return (self.bytes_per_hour, self.request_bytes_per_hour)


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Account:
    """What is counted together for one worker, under a name that nothing else has."""

    name: str
    limits: Limits


@dataclass(slots=True)
class NeedsResolution:
    """A rule could allow this request, if every address of `host` passes.

    `match` is the judge's own note of what it found; given back to `decide` it saves finding it
    again, and without it, or with another's, the verdict is the same.
    """

    host: CanonicalHost
    port: int
    match: object = field(default=None, compare=False, repr=False)


class Verdict(NamedTuple):
    """The judge's answer about one request.

    `pinned` holds the only addresses that may be dialled, in the order they were resolved; it is
    empty unless the effect is ALLOW. `line` is the 1-based line of the rule in `policy_file`.
    `fingerprint` is 64 hex digits. `would_deny` is the reason that observe mode let pass.
    `limits` are the sizes that hold and the deciding rule's own rates; `accounts` are all whose
    bytes an hour the exchange is counted against.
    `credentials` name what is added to the request before it leaves, or what could not be; they
    hold no secret. `log_query`: the deciding rule wants the query in the audit entry.
    `upstream_tls` is how the server must be met.
    """

    effect: Effect
    reason: Reason
    fingerprint: str
    policy_digest: str
    rule_id: str | None = None
    policy_file: str | None = None
    line: int | None = None
    pinned: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    carriage: Carriage = INSPECTED
    consequence: Consequence = Consequence.NONE
    strike_limit: int = 0
    strike_window_ms: int = 0
    would_deny: Reason | None = None
    credentials: tuple[CredentialBinding, ...] = ()
    accounts: tuple[Account, ...] = ()
    log_query: bool = False
    upstream_tls: UpstreamTls = USUAL_TLS

    @property
    def tls(self) -> TlsMode:
        return self.carriage.mode

    @property
    def allowed(self) -> bool:
        return self.effect is Effect.ALLOW

    @property
    def reason_class(self) -> ReasonClass:
        return REASONS[self.reason].reason_class
