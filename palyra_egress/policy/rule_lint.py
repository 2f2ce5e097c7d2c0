"""What is worth a second look in one allow rule, seen beside the others of its file.

Input: a rule, the file it stands in, the time. Output: pairs of a code and the end of a sentence
that begins with the rule's name. Two rules are compared only where every profile that has the one
has the other too. `rule_shadowed` means that taking the rule away changes no verdict;
`rule_unreachable` means that another rule for the same hosts and paths is always tried first, so
this rule's own limits never apply.
"""

from collections.abc import Iterator
from typing import Final

from palyra_egress.destination.hostpattern import HostPattern, PatternKind
from palyra_egress.policy.coverage import (
    host_covers,
    path_covers,
    ranges_cover,
    split_host,
    until_covers,
)
from palyra_egress.policy.lint_codes import LintCode
from palyra_egress.policy.paths import PathPattern
from palyra_egress.policy.schema import (
    Acknowledgement,
    PolicySpec,
    RuleSpec,
    effective_limits,
    is_budget_zero,
)
from palyra_egress.policy.tunnel_changes import EXCEPTIONS, Place, Tunnels
from palyra_egress.policy.values import write_time
from palyra_egress.verdict import NO_LIMITS, Limits

SOON_MS: Final = 30 * 24 * 3_600_000
WIDE_PRIVATE_IPV4: Final = 1 << 16
WIDE_PRIVATE_IPV6: Final = 1 << 80
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "SEARCH"})

type Said = tuple[LintCode, str]


def is_live(rule: RuleSpec, now_unix_ms: int) -> bool:
    return rule.until_unix_ms is None or now_unix_ms < rule.until_unix_ms


def is_empty(rule: RuleSpec, profile: Limits, defaults: Limits) -> bool:
    """True if the rule can allow nothing at any time: an empty list, or no byte of response."""
    lists = (rule.hosts, rule.endpoints, rule.methods)
    has_no_way = not all(lists) or rule.paths == ()
    return has_no_way or is_budget_zero(rule.limits, profile, defaults)


def _time_findings(rule: RuleSpec, now_unix_ms: int) -> Iterator[Said]:
    until = rule.until_unix_ms
    if until is None:
        return
    if not is_live(rule, now_unix_ms):
        yield LintCode.RULE_EXPIRED, f"has expired at {write_time(until)}"
    elif until - now_unix_ms <= SOON_MS:
        days = (until - now_unix_ms) // (24 * 3_600_000)
        yield LintCode.RULE_EXPIRES_SOON, f"expires in {days} days, at {write_time(until)}"


def _is_wildcard(pattern: HostPattern) -> bool:
    return pattern.kind in (PatternKind.BELOW, PatternKind.NAME_AND_BELOW)


def _is_network(pattern: HostPattern) -> bool:
    return pattern.addresses is not None and pattern.addresses.low != pattern.addresses.high


def _width_findings(rule: RuleSpec) -> Iterator[Said]:
    meant = Acknowledgement.WIDE_HOST in rule.acknowledged
    for host in rule.hosts:
        if meant and (host.is_wide or host.is_shared):
            yield LintCode.WIDE_HOST, f"names {host.text}, acknowledged"
        elif host.is_shared:
            yield LintCode.PUBLIC_SUFFIX, f"names {host.text}: anybody can get a name there"
    writes = [method for method in rule.methods if method not in _READING]
    everywhere = rule.paths is None or any(path_covers(path, None) for path in rule.paths)
    wildcards = [host.text for host in rule.hosts if _is_wildcard(host)]
    if rule.is_tunnelled and wildcards:
        yield LintCode.TUNNEL_WIDE, f"passes on unseen what goes to {', '.join(wildcards)}"
    elif writes and everywhere and wildcards and not meant:
        yield (
            LintCode.OVER_BROAD,
            f"lets {', '.join(writes)} go to any path of any host in {', '.join(wildcards)}",
        )
    many = [host.text for host in rule.hosts if _is_wildcard(host) or _is_network(host)]
    if many:
        for binding in rule.credentials:
            yield (
                LintCode.CREDENTIAL_WILDCARD,
                f"sends {binding.secret} to any host in {', '.join(many)}",
            )
        if (shown := rule.upstream_tls.client_certificate) is not None:
            yield (
                LintCode.CLIENT_CERTIFICATE_WILDCARD,
                f"shows the certificate {shown} to any host in {', '.join(many)}",
            )
    for version, low, high in rule.private:
        size = high - low + 1
        wide = size > (WIDE_PRIVATE_IPV4 if version == 4 else WIDE_PRIVATE_IPV6)
        code = LintCode.WIDE_PRIVATE_RANGE if wide else LintCode.PRIVATE_RANGE
        bits = (32 if version == 4 else 128) - (size - 1).bit_length()
        yield code, f"opens a private /{bits} of IPv{version}"


class Neighbours:
    """The rules of one file, found by the names they write, and the profiles that have them."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.tunnels = Tunnels(spec)
        self._profiles: dict[str, set[str]] = {}
        self._by_name: dict[str, dict[str, RuleSpec]] = {}
        for profile in spec.profiles:
            for rule_id, _ in profile.rule_ids:
                self._profiles.setdefault(rule_id, set()).add(profile.name)
        for rule in spec.rules:
            for host in rule.hosts:
                self._by_name.setdefault(host.name, {})[rule.rule_id] = rule

    def profiles(self, rule: RuleSpec) -> set[str]:
        return self._profiles.get(rule.rule_id, set())

    def same_limits(self, rule: RuleSpec, other: RuleSpec) -> bool:
        """True if both have the same budgets in whatever profile they stand."""
        of_profiles = {NO_LIMITS, *(profile.limits for profile in self.spec.profiles)}
        file = self.spec.limits
        return all(
            effective_limits(rule.limits, own, file) == effective_limits(other.limits, own, file)
            for own in of_profiles
        )

    def beside(self, rule: RuleSpec) -> Iterator[RuleSpec]:
        """Other rules that could name the rule's first host, wherever this one applies."""
        mine = self.profiles(rule)
        name = rule.hosts[0].name
        while True:
            for other in self._by_name.get(name, {}).values():
                if other is not rule and mine <= self.profiles(other):
                    yield other
            if not name:
                return
            name = name.partition(".")[2]


def _allows_all_of(other: RuleSpec, rule: RuleSpec) -> bool:
    """True if whatever `rule` allows at any time, `other` allows too."""
    wide_paths: tuple[PathPattern | None, ...] = (None,) if other.paths is None else other.paths
    paths: tuple[PathPattern | None, ...] = (None,) if rule.paths is None else rule.paths
    hosts = [part for host in rule.hosts for part in split_host(host)]
    return (
        set(rule.endpoints) <= set(other.endpoints)
        and set(rule.methods) <= set(other.methods)
        and until_covers(other.until_unix_ms, rule.until_unix_ms)
        and other.encoded_slash >= rule.encoded_slash
        and other.carriage == rule.carriage
        and other.log_query >= rule.log_query
        and other.websocket >= rule.websocket
        and ranges_cover(other.private, rule.private)
        and all(any(host_covers(wide, host) for wide in other.hosts) for host in hosts)
        and all(any(path_covers(wide, path) for wide in wide_paths) for path in paths)
    )


def _names(rule: RuleSpec) -> tuple[frozenset[object], frozenset[object] | None]:
    """Which patterns a rule writes, whatever their order."""
    hosts = frozenset((host.kind, host.name, host.addresses) for host in rule.hosts)
    return hosts, None if rule.paths is None else frozenset(path.segments for path in rule.paths)


def _beside_others(rule: RuleSpec, neighbours: Neighbours) -> Iterator[Said]:
    spec = neighbours.spec
    if is_empty(rule, NO_LIMITS, spec.limits) or not neighbours.profiles(rule):
        return
    for other in neighbours.beside(rule):
        if is_empty(other, NO_LIMITS, spec.limits) or not _allows_all_of(other, rule):
            continue
        same = (
            neighbours.same_limits(rule, other)
            and other.observe == rule.observe
            and other.credentials == rule.credentials
            and other.upstream_tls == rule.upstream_tls
        )
        is_first = _allows_all_of(rule, other) and rule.rule_id < other.rule_id
        comes_first = _names(other) == _names(rule) and other.rule_id < rule.rule_id
        if same and not is_first:
            yield LintCode.RULE_SHADOWED, f"allows nothing that {other.rule_id} does not allow"
            return
        if comes_first:
            yield LintCode.RULE_UNREACHABLE, f"never decides: {other.rule_id} is tried first"
            return


def _tunnel_findings(rule: RuleSpec, neighbours: Neighbours) -> Iterator[Said]:
    """What is worth a look where a rule passes tunnels on, or accepts a hello that hides a name."""
    if hidden := [name for name in EXCEPTIONS if getattr(rule.carriage, name)]:
        yield LintCode.HIDDEN_SNI, f"accepts {' and '.join(hidden)}"
    if not rule.is_tunnelled or is_empty(rule, NO_LIMITS, neighbours.spec.limits):
        return
    mine = [
        Place(profile, port, host)
        for profile in neighbours.profiles(rule)
        for _, port in rule.endpoints
        for pattern in rule.hosts
        for host in split_host(pattern)
    ]
    if mine and not any(rule in neighbours.tunnels.passed_on(place) for place in mine):
        yield LintCode.TUNNEL_NEVER, "never passes a tunnel on: other rules inspect its hosts"
    if not _is_metered(rule, neighbours.spec.limits):
        yield LintCode.TUNNEL_UNMETERED, "sets no budget for what leaves unseen"


def _is_metered(rule: RuleSpec, file: Limits) -> bool:
    """Whether anything bounds what leaves under the rule at once or in an hour."""
    bounds = (
        effective_limits(rule.limits, NO_LIMITS, file).max_request_bytes,
        *(hour for one in (rule.limits, file) for hour in one.outward_hours),
    )
    return any(bound is not None for bound in bounds)


def rule_findings(rule: RuleSpec, neighbours: Neighbours, now_unix_ms: int) -> Iterator[Said]:
    """Everything about one rule, the gravest first."""
    spec = neighbours.spec
    if is_empty(rule, NO_LIMITS, spec.limits):
        yield LintCode.ALLOWS_NOTHING, "allows nothing"
    yield from _time_findings(rule, now_unix_ms)
    if not neighbours.profiles(rule):
        yield LintCode.RULE_UNUSED, "is in no profile"
    if rule.hosts and all(
        any(host_covers(denied, host) for deny in spec.deny for denied in deny.hosts)
        for host in rule.hosts
    ):
        yield LintCode.RULE_DENIED, "is taken away by deny rules"
    yield from _beside_others(rule, neighbours)
    yield from _width_findings(rule)
    yield from _tunnel_findings(rule, neighbours)
    if rule.websocket and not _is_metered(rule, spec.limits):
        yield LintCode.WEBSOCKET_UNMETERED, "sets no budget for what leaves in messages"
    if rule.observe:
        yield LintCode.OBSERVE_LEFT_ON, "only observes: what is refused for its hosts passes"
    if rule.log_query:
        yield LintCode.QUERY_LOGGED, "writes queries into the audit log"
    if rule.owner is None:
        yield LintCode.RULE_UNOWNED, "has no owner"
    if rule.reason is None:
        yield LintCode.NO_REASON, "has no reason"
