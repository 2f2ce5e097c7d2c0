"""What a policy gives, written out: one grant for each way in which a rule allows something.

A grant is (profile, what it demands of the worker, scheme, host pattern, port, method, path
pattern, private ranges, until, encoded slash) with the budgets that hold. Rules that can allow
nothing, and hosts that deny rules take away as a whole while the policy enforces, give no grants.
An `Observer` is a rule (or every rule, where the policy observes) whose refusals pass. `GrantIndex`
finds the grants that cover a given one at a cost that does not grow with the number of rules for
other hosts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from palyra_egress.destination.address_class import AddressRange
from palyra_egress.destination.hostpattern import HostPattern, PatternKind
from palyra_egress.policy import requirements
from palyra_egress.policy.coverage import (
    host_covers,
    path_covers,
    ranges_cover,
    split_host,
    until_covers,
)
from palyra_egress.policy.paths import PathPattern
from palyra_egress.policy.requirements import Requirements
from palyra_egress.policy.schema import (
    Mode,
    PolicySpec,
    ProfileSpec,
    RuleSpec,
    effective_limits,
    is_budget_zero,
)
from palyra_egress.request import Scheme
from palyra_egress.verdict import Limits

type Door = tuple[str, Scheme, int, str]
"""Profile, scheme, port and method: what two grants must share to be compared at all."""


@dataclass(frozen=True, slots=True)
class Grant:
    """`pattern` is the host pattern as the rule writes it, `host` the part of it meant here."""

    profile: str
    rule: RuleSpec
    scheme: Scheme
    pattern: HostPattern
    host: HostPattern
    port: int
    method: str
    path: PathPattern | None
    limits: Limits
    requires: Requirements | None = None

    @property
    def door(self) -> Door:
        return (self.profile, self.scheme, self.port, self.method)

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts as the judge tries rules: the most specific host, then path, then id."""
        kinds = (PatternKind.NAME, PatternKind.BELOW, PatternKind.NAME_AND_BELOW)
        kind = kinds.index(self.pattern.kind) if self.pattern.kind in kinds else 0
        path = self.path
        depth = 0 if path is None else path.literal_prefix.count("/")
        is_open = path is None or path.exact is None
        how = (3,) if path is None else path.specificity
        size = len(self.pattern.name) or self.pattern.prefix_length
        return (-size, kind, is_open, -depth, how, self.rule.rule_id)

    def same_place(self, other: "Grant") -> bool:
        """True if this grant's hosts and paths hold the other's; doors are equal already."""
        return host_covers(self.host, other.host) and path_covers(self.path, other.path)

    def covers(self, other: "Grant") -> bool:
        """True if everything the other allows, at any time and to any worker, is allowed here."""
        mine, theirs = self.rule, other.rule
        return (
            self.same_place(other)
            and until_covers(mine.until_unix_ms, theirs.until_unix_ms)
            and ranges_cover(mine.private, theirs.private)
            and mine.encoded_slash >= theirs.encoded_slash
            and (self.method != "GET" or mine.is_tunnelled or mine.websocket >= theirs.websocket)
            and requirements.covers(self.requires, other.requires)
        )


@dataclass(frozen=True, slots=True)
class Observer:
    """A rule whose refusals pass for one host pattern, whatever scheme, port, method and path."""

    profile: str
    rule: RuleSpec
    host: HostPattern
    private: tuple[AddressRange, ...]
    requires: Requirements | None = None

    def covers(self, other: "Observer") -> bool:
        return (
            self.profile == other.profile
            and host_covers(self.host, other.host)
            and until_covers(self.rule.until_unix_ms, other.rule.until_unix_ms)
            and ranges_cover(self.private, other.private)
            and requirements.covers(self.requires, other.requires)
        )


def _named_rules(spec: PolicySpec) -> Iterator[tuple[ProfileSpec, RuleSpec]]:
    """Every profile with each of its rules once."""
    rules = {rule.rule_id: rule for rule in spec.rules}
    for profile in spec.profiles:
        for rule_id in dict.fromkeys(rule_id for rule_id, _ in profile.rule_ids):
            yield profile, rules[rule_id]


def rules_of(spec: PolicySpec) -> Iterator[tuple[str, RuleSpec]]:
    """The name of every profile with each of its rules once."""
    return ((profile.name, rule) for profile, rule in _named_rules(spec))


def is_denied(host: HostPattern, spec: PolicySpec) -> bool:
    """Whether deny rules take this host away as a whole."""
    return spec.mode is Mode.ENFORCE and any(
        host_covers(denied, host) for deny in spec.deny for denied in deny.hosts
    )


def grants_of(spec: PolicySpec) -> Iterator[Grant]:
    """Every grant of a policy, in the order of its profiles and rules."""
    for profile, rule in _named_rules(spec):
        limits = effective_limits(rule.limits, profile.limits, spec.limits)
        can_be_met = profile.requires is None or profile.requires.can_be_met
        if not can_be_met or is_budget_zero(rule.limits, profile.limits, spec.limits):
            continue
        paths: tuple[PathPattern | None, ...] = (None,) if rule.paths is None else rule.paths
        hosts = [
            (pattern, host)
            for pattern in rule.hosts
            for host in split_host(pattern)
            if not is_denied(host, spec)
        ]
        for pattern, host in hosts:
            for scheme, port in rule.endpoints:
                for method in rule.methods:
                    for path in paths:
                        yield Grant(
                            profile.name,
                            rule,
                            scheme,
                            pattern,
                            host,
                            port,
                            method,
                            path,
                            limits,
                            profile.requires,
                        )


def observers_of(spec: PolicySpec) -> Iterator[Observer]:
    """Every rule that only observes, for each host it names."""
    for profile, rule in _named_rules(spec):
        if rule.observe:
            for pattern in rule.hosts:
                for host in split_host(pattern):
                    yield Observer(profile.name, rule, host, rule.private, profile.requires)


class GrantIndex:
    """Grants by door and by the name they write."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._by_name: dict[Door, dict[str, list[Grant]]] = {}
        for grant in grants:
            names = self._by_name.setdefault(grant.door, {})
            names.setdefault(grant.host.name, []).append(grant)

    def near(self, grant: Grant) -> list[Grant]:
        """Grants with the same door whose hosts and paths hold the given one's, best first."""
        names = self._by_name.get(grant.door, {})
        found: list[Grant] = []
        name = grant.host.name
        while True:
            found += [other for other in names.get(name, ()) if other.same_place(grant)]
            if not name:
                break
            name = name.partition(".")[2]
        found.sort(key=lambda other: other.rank)
        return found

    def covering(self, grant: Grant) -> Grant | None:
        """The grant that the judge would try first of those that cover the given one."""
        return next((other for other in self.near(grant) if other.covers(grant)), None)
