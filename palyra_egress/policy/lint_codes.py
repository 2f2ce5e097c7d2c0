"""Every code the linter can give, in one table: its level, and what the author of a policy can do.

Levels: NOTE informs, WARNING wants a decision (the command then exits with 1), ERROR is a file that
is refused. A released spelling never changes. Codes with `is_fixed` cannot be ignored in a file:
they are about the ignores themselves.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Level(StrEnum):
    """How much a finding weighs, the lightest first."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class LintCode(StrEnum):
    """Stable codes, as ignores, editors and pipelines name them."""

    RULE_EXPIRED = "rule_expired"
    RULE_EXPIRES_SOON = "rule_expires_soon"
    ALLOWS_NOTHING = "allows_nothing"
    RULE_UNUSED = "rule_unused"
    RULE_DENIED = "rule_denied"
    RULE_SHADOWED = "rule_shadowed"
    RULE_UNREACHABLE = "rule_unreachable"
    OVER_BROAD = "over_broad"
    PUBLIC_SUFFIX = "public_suffix"
    WIDE_HOST = "wide_host"
    WIDE_PRIVATE_RANGE = "wide_private_range"
    PRIVATE_RANGE = "private_range"
    CREDENTIAL_WILDCARD = "credential_wildcard"
    CLIENT_CERTIFICATE_WILDCARD = "client_certificate_wildcard"
    CANARY_COSTS_NOTHING = "canary_costs_nothing"
    TUNNEL_WIDE = "tunnel_wide"
    TUNNEL_NEVER = "tunnel_never"
    TUNNEL_UNMETERED = "tunnel_unmetered"
    WEBSOCKET_UNMETERED = "websocket_unmetered"
    HIDDEN_SNI = "hidden_sni"
    QUERY_LOGGED = "query_logged"
    RULE_UNOWNED = "rule_unowned"
    NO_REASON = "no_reason"
    OBSERVE_LEFT_ON = "observe_left_on"
    PROFILE_ALLOWS_NOTHING = "profile_allows_nothing"
    PROFILE_EMPTY = "profile_empty"
    REQUIREMENT_UNMEETABLE = "requirement_unmeetable"
    LIMIT_NEVER_REACHED = "limit_never_reached"
    NOTHING_ALLOWED = "nothing_allowed"
    DENY_OVERLAPS_RULE = "deny_overlaps_rule"
    NO_TESTS = "no_tests"
    IGNORE_EXPIRED = "ignore_expired"
    IGNORE_UNUSED = "ignore_unused"


@dataclass(frozen=True, slots=True)
class LintRow:
    """`advice` is what would make the finding go away, as a phrase after "expected"."""

    level: Level
    title: str
    advice: str
    is_fixed: bool = False


_NOTE, _WARNING = Level.NOTE, Level.WARNING
_C = LintCode

LINT: Final = MappingProxyType(
    {
        _C.RULE_EXPIRED: LintRow(_WARNING, "the rule has expired", "a later `until`, or no rule"),
        _C.RULE_EXPIRES_SOON: LintRow(
            _WARNING, "the rule expires within 30 days", "a later `until`, or a plan to go without"
        ),
        _C.ALLOWS_NOTHING: LintRow(
            _WARNING, "the rule allows nothing", "no empty list, no zero budget"
        ),
        _C.RULE_UNUSED: LintRow(_WARNING, "no profile names the rule", "a profile that names it"),
        _C.RULE_DENIED: LintRow(
            _WARNING, "deny rules take away every host of the rule", "another host, or no rule"
        ),
        _C.RULE_SHADOWED: LintRow(
            _WARNING, "another rule allows all that this one allows", "one of the two rules"
        ),
        _C.RULE_UNREACHABLE: LintRow(
            _WARNING, "another rule always decides instead", "one of the two rules"
        ),
        _C.OVER_BROAD: LintRow(
            _WARNING,
            "anything may be written to any host below a name",
            "named hosts, or `paths`, or reading methods only",
        ),
        _C.PUBLIC_SUFFIX: LintRow(
            _WARNING,
            "anybody can get a name below this suffix",
            "the names that are needed, or `acknowledge: [wide_host]`",
        ),
        _C.WIDE_HOST: LintRow(_NOTE, "a very wide pattern, acknowledged", "narrower patterns"),
        _C.WIDE_PRIVATE_RANGE: LintRow(
            _WARNING, "more than 65536 private addresses are opened", "a narrower range"
        ),
        _C.PRIVATE_RANGE: LintRow(
            _NOTE, "private addresses are opened", "this to be meant, and still needed"
        ),
        _C.TUNNEL_WIDE: LintRow(
            _WARNING,
            "anything passes unseen to any host below a name",
            "named hosts, or inspection",
        ),
        _C.TUNNEL_NEVER: LintRow(
            _WARNING, "another rule inspects all that this one would pass on", "one of the two"
        ),
        _C.TUNNEL_UNMETERED: LintRow(
            _WARNING,
            "nothing bounds what leaves through tunnels that are not seen",
            "`max_request_bytes` or a budget of bytes an hour",
        ),
        _C.WEBSOCKET_UNMETERED: LintRow(
            _WARNING,
            "nothing bounds what leaves in the messages of WebSockets",
            "`max_request_bytes` or a budget of bytes an hour",
        ),
        _C.HIDDEN_SNI: LintRow(
            _WARNING, "a TLS handshake may hide which server it is for", "this to be meant"
        ),
        _C.CREDENTIAL_WILDCARD: LintRow(
            _WARNING, "a credential goes to any host below a name", "the names that need it"
        ),
        _C.CLIENT_CERTIFICATE_WILDCARD: LintRow(
            _WARNING, "a client certificate is shown to any host below a name", "the names that ask"
        ),
        _C.CANARY_COSTS_NOTHING: LintRow(
            _WARNING,
            "whoever sends a canary is refused and nothing more",
            "`canary` under `violations: quarantine:`",
        ),
        _C.QUERY_LOGGED: LintRow(
            _NOTE, "queries stand in the audit log, and may hold tokens", "this to be meant"
        ),
        _C.RULE_UNOWNED: LintRow(
            _WARNING, "nobody owns the rule", "an `owner` who answers for the rule"
        ),
        _C.NO_REASON: LintRow(
            _WARNING, "nothing says why the rule is there", "a `reason`, best with a ticket"
        ),
        _C.OBSERVE_LEFT_ON: LintRow(
            _WARNING,
            "refusals are only reported, not enforced",
            "enforcement; `policy promote` says what stands in the way",
        ),
        _C.PROFILE_ALLOWS_NOTHING: LintRow(
            _WARNING, "no rule of the profile can allow anything now", "a rule that is live"
        ),
        _C.PROFILE_EMPTY: LintRow(_NOTE, "the profile has no rules", "rules, if leases use it"),
        _C.REQUIREMENT_UNMEETABLE: LintRow(
            _WARNING,
            "no worker can be what the profile demands",
            "digests that workers have, or no such demand",
        ),
        _C.LIMIT_NEVER_REACHED: LintRow(
            _NOTE, "a stricter limit always holds first", "a limit below the other, or one of them"
        ),
        _C.NOTHING_ALLOWED: LintRow(
            _NOTE, "no profile has a rule: everything is refused", "rules and profiles, when needed"
        ),
        _C.DENY_OVERLAPS_RULE: LintRow(
            _NOTE, "a deny rule takes away a part of what rules allow", "this to be meant"
        ),
        _C.NO_TESTS: LintRow(
            _NOTE, "the policy has no tests", "`tests` for what must work and what must not"
        ),
        _C.IGNORE_EXPIRED: LintRow(
            _WARNING, "the ignore has expired", "the finding mended, or a new date", is_fixed=True
        ),
        _C.IGNORE_UNUSED: LintRow(
            _WARNING, "the ignore matches no finding", "no such ignore", is_fixed=True
        ),
    }
)

IGNORABLE: Final = tuple(code.value for code in LintCode if not LINT[code].is_fixed)
"""What `lint: ignore:` may name."""
