"""Turns a policy file's model into what the judge looks things up in.

Input: a `PolicySpec` and the digest of its source. Output: a `CompiledPolicy`: per profile an index
from host to `HostRules`, inside it tables by (scheme, port, method), and inside those tables by
exact path and by the literal beginning of a path pattern, so that a decision costs a few dictionary
look-ups whatever the number of rules, also of rules for one host.

Rules that share host, endpoint and method are tried in order of path specificity (a literal segment
before `*` before `**` before no path at all), then by rule id: never in file order. Rules that can
allow nothing (an empty list somewhere) open no endpoint. The digest is the SHA-256 of the file's
bytes, in hex: anyone can recompute it, and an edited comment is an edited policy. Where a policy
has several files, it is the SHA-256 of all of them in their order, with names and lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from palyra_egress.credentials.binding import CredentialBinding, SecretRef
from palyra_egress.credentials.patterns import PatternSet, Watched
from palyra_egress.destination.address_class import AddressRange
from palyra_egress.destination.hostpattern import HostIndex, HostPattern
from palyra_egress.facts import AttestedFacts
from palyra_egress.policy.paths import PathPattern
from palyra_egress.policy.requirements import Requirements
from palyra_egress.policy.schema import (
    DenySpec,
    Mode,
    PolicySpec,
    ProfileSpec,
    RuleSpec,
    effective_limits,
    is_budget_zero,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import Scheme
from palyra_egress.verdict import (
    INSPECTED,
    NO_LIMITS,
    USUAL_TLS,
    Account,
    Carriage,
    Consequence,
    Limits,
    TlsMode,
    UpstreamTls,
)
from palyra_fleet.strict_yaml.document import Position

type Endpoint = tuple[Scheme, int]
_ANY_PATH: Final = (3,)


@dataclass(slots=True, eq=False)
class CompiledRule:
    """What a decision needs of one rule. `line` is 1-based; times are Unix milliseconds.

    A rule whose responses may have no byte (`is_budget_zero`) allows nothing. Limits and `accounts`
    are those of the rule in one profile: a profile that sets limits has its own copy of its rules.
    """

    rule_id: str
    file: str
    line: int
    private: tuple[AddressRange, ...]
    until_unix_ms: int | None
    limits: Limits
    observe: bool
    encoded_slash: bool
    owner: str | None
    reason: str | None
    is_budget_zero: bool
    credentials: tuple[CredentialBinding, ...] = ()
    accounts: tuple[Account, ...] = ()
    carriage: Carriage = INSPECTED
    log_query: bool = False
    websocket: bool = False
    upstream_tls: UpstreamTls = USUAL_TLS

    def is_live(self, now_unix_ms: int) -> bool:
        return self.until_unix_ms is None or now_unix_ms < self.until_unix_ms


class PatternRow(NamedTuple):
    """One way in which a rule accepts a path; `pattern` None accepts all below the prefix."""

    specificity: tuple[int, ...]
    pattern: PathPattern | None
    rule: CompiledRule


@dataclass(slots=True, eq=False)
class MethodRules:
    """The rules of one host, endpoint and method.

    `by_prefix` groups patterns by their literal segments before the first wildcard, so that only
    the groups on the way of a path are looked at; `depth` is the length of the longest such prefix.
    """

    exact: dict[str, list[CompiledRule]] = field(default_factory=dict)
    by_prefix: dict[str, list[PatternRow]] = field(default_factory=dict)
    depth: int = 0
    nearest: CompiledRule | None = None

    def add(self, paths: tuple[PathPattern, ...] | None, rule: CompiledRule) -> None:
        if self.nearest is None or rule.rule_id < self.nearest.rule_id:
            self.nearest = rule
        if paths is None:
            self.by_prefix.setdefault("", []).append(PatternRow(_ANY_PATH, None, rule))
            return
        for path in paths:
            if path.exact is not None:
                self.exact.setdefault(path.exact, []).append(rule)
                continue
            prefix = path.literal_prefix
            self.depth = max(self.depth, prefix.count("/"))
            open_below = len(path.segments) == prefix.count("/") + 1 and path.is_deep
            row = PatternRow(path.specificity, None if open_below else path, rule)
            self.by_prefix.setdefault(prefix, []).append(row)

    def sort(self) -> None:
        for rules in self.exact.values():
            rules.sort(key=lambda rule: rule.rule_id)
        for rows in self.by_prefix.values():
            rows.sort(key=lambda row: (row.specificity, row.rule.rule_id))


@dataclass(slots=True, eq=False)
class HostRules:
    """Every rule of one profile that names one host pattern.

    `connect` keeps one rule for each different way of judging a tunnel: by private ranges, time and
    carriage. Of the rules of one host pattern those that inspect come first.
    """

    by_method: dict[tuple[Scheme, int, str], MethodRules] = field(default_factory=dict)
    by_endpoint: dict[Endpoint, list[CompiledRule]] = field(default_factory=dict)
    by_scheme: dict[Scheme, list[CompiledRule]] = field(default_factory=dict)
    connect: dict[Endpoint, list[CompiledRule]] = field(default_factory=dict)
    rules: list[CompiledRule] = field(default_factory=list)
    observing: list[CompiledRule] = field(default_factory=list)

    def add(self, spec: RuleSpec, rule: CompiledRule) -> None:
        """Rules are added in the order of their ids."""
        self.rules.append(rule)
        if rule.observe:
            self.observing.append(rule)
        if not spec.methods or spec.paths == ():
            return
        schemes: set[Scheme] = set()
        for scheme, port in spec.endpoints:
            schemes.add(scheme)
            self.by_endpoint.setdefault((scheme, port), []).append(rule)
            for method in spec.methods:
                key = (scheme, port, method)
                self.by_method.setdefault(key, MethodRules()).add(spec.paths, rule)
        for scheme in schemes:
            self.by_scheme.setdefault(scheme, []).append(rule)

    def finish(self) -> None:
        """Sorts what has an order and makes the table for tunnels."""
        for method_rules in self.by_method.values():
            method_rules.sort()
        for endpoint, rules in self.by_endpoint.items():
            ways = {
                (rule.private, rule.until_unix_ms, rule.is_budget_zero, rule.carriage): rule
                for rule in reversed(rules)
            }
            self.connect[endpoint] = sorted(ways.values(), key=_order_at_connect)


def _order_at_connect(rule: CompiledRule) -> tuple[object, ...]:
    """Inspecting before passing on; then what accepts more ClientHellos, so that adding a rule
    refuses none that were accepted."""
    carriage = rule.carriage
    is_tunnel = carriage.mode is TlsMode.TUNNEL
    return (is_tunnel, not carriage.missing_sni, not carriage.ech, rule.rule_id)


@dataclass(slots=True, eq=False)
class CompiledProfile:
    """What a lease with this profile may do, and what its worker must be for that.

    `limits` are the sizes where no rule decides, `rates` the requests a minute that hold for all
    that is asked, `accounts` what every byte is counted against. A profile is no rule: where a
    verdict names the cause, it gives a line and no id.
    """

    name: str
    file: str
    line: int
    index: HostIndex[HostRules]
    requires: Requirements | None
    limits: Limits
    rates: tuple[Account, ...]
    accounts: tuple[Account, ...]
    rule_id: None = None

    def contradicts(self, facts: AttestedFacts) -> bool:
        """Whether something that is known about a worker fails a demand."""
        return self.requires is not None and self.requires.are_contradicted(facts)


@dataclass(slots=True, eq=False)
class CompiledDeny:
    rule_id: str
    file: str
    line: int
    reason: str | None


@dataclass(slots=True, eq=False)
class CompiledCanary:
    """Where a canary stands, and the name of the secret that holds it; a value that stands in the
    file is only in the patterns."""

    rule_id: str
    file: str
    line: int
    secret: SecretRef | None


@dataclass(frozen=True, slots=True)
class Penalty:
    """What one reason costs a worker: strikes count within `window_ms` up to `limit`."""

    consequence: Consequence
    limit: int = 0
    window_ms: int = 0


NO_PENALTY: Final = Penalty(Consequence.NONE)


@dataclass(slots=True, eq=False)
class CompiledPolicy:
    """A whole policy, ready to judge. Never changed after `compile_policy` returned it.

    `ends_unix_ms` are the times at which rules end, in order. `decoys` are the canaries whose
    values stand in the files; those that are secrets only the proxy can look for.
    """

    file: str
    name: str
    digest: str
    mode: Mode
    carriage: Carriage
    rates: tuple[Account, ...]
    profiles: dict[str, CompiledProfile]
    rules: dict[str, CompiledRule]
    deny: HostIndex[CompiledDeny]
    penalties: dict[Reason, Penalty]
    ends_unix_ms: tuple[int, ...]
    spec: PolicySpec
    canaries: dict[str, CompiledCanary] = field(default_factory=dict)
    decoys: PatternSet | None = None

    @property
    def observes(self) -> bool:
        return self.mode is Mode.OBSERVE

    @property
    def secrets(self) -> frozenset[SecretRef]:
        """Every secret that the policy names: those that requests carry, and those that are
        canaries."""
        bound = {one.secret for rule in self.rules.values() for one in rule.credentials}
        decoys = {one.secret for one in self.canaries.values() if one.secret is not None}
        return frozenset(bound | decoys)


def policy_digest(source: bytes) -> str:
    return sha256(source).hexdigest()


def files_digest(files: Sequence[tuple[str, bytes]]) -> str:
    """The digest of (name, bytes) in reading order; that of one file is of its bytes alone.

    Names are relative to the outermost file's directory, and that file's own name is left out. The
    NUL in front stands in no text that YAML allows, so no single file has the digest of several.
    """
    if len(files) == 1:
        return policy_digest(files[0][1])
    digest = sha256(b"\0palyra-policy-files:1\n")
    for name, source in files:
        for part in (name.encode(), source):
            digest.update(b"%d:" % len(part))
            digest.update(part)
    return digest.hexdigest()


def _counting_bytes(*accounts: Account) -> tuple[Account, ...]:
    return tuple(account for account in accounts if account.limits.counts_bytes)


def _counting_requests(*accounts: Account) -> tuple[Account, ...]:
    return tuple(one for one in accounts if one.limits.requests_per_minute is not None)


def rule_account(rule_id: str | None) -> str:
    """The name under which is counted what one rule alone allows."""
    return f"rule/{rule_id}"


def _file_account(spec: PolicySpec) -> Account:
    return Account("file", spec.limits)


def _profile_account(spec: ProfileSpec) -> Account:
    return Account(f"profile/{spec.name}", spec.limits)


def _compile_rule(spec: RuleSpec, policy: PolicySpec, profile: ProfileSpec) -> CompiledRule:
    accounts = (
        Account(rule_account(spec.rule_id), spec.limits),
        _profile_account(profile),
        _file_account(policy),
    )
    return CompiledRule(
        rule_id=spec.rule_id,
        file=spec.file or policy.file,
        line=spec.position.line,
        private=spec.private,
        until_unix_ms=spec.until_unix_ms,
        limits=effective_limits(spec.limits, profile.limits, policy.limits),
        observe=spec.observe,
        encoded_slash=spec.encoded_slash,
        owner=spec.owner,
        reason=spec.reason,
        is_budget_zero=is_budget_zero(spec.limits, profile.limits, policy.limits),
        credentials=tuple(one._replace(rule_id=spec.rule_id) for one in spec.credentials),
        accounts=_counting_bytes(*accounts),
        carriage=spec.carriage,
        log_query=spec.log_query,
        websocket=spec.websocket,
        upstream_tls=spec.upstream_tls,
    )


def _compile_index(
    profile: ProfileSpec,
    policy: PolicySpec,
    specs: dict[str, RuleSpec],
    rules: dict[str, CompiledRule],
) -> HostIndex[HostRules]:
    """`rules` are those of a profile without limits; one that has limits gets its own."""
    index: HostIndex[HostRules] = HostIndex()
    touched: dict[int, HostRules] = {}
    for rule_id in sorted({rule_id for rule_id, _ in profile.rule_ids}):
        spec, rule = specs[rule_id], rules[rule_id]
        if profile.limits != NO_LIMITS:
            rule = _compile_rule(spec, policy, profile)
        for host in _distinct(spec.hosts):
            slot = index.slot(host, HostRules())
            slot.add(spec, rule)
            touched[id(slot)] = slot
    for slot in touched.values():
        slot.finish()
    return index


def _compile_profile(
    spec: ProfileSpec, policy: PolicySpec, index: HostIndex[HostRules]
) -> CompiledProfile:
    accounts = (_profile_account(spec), _file_account(policy))
    return CompiledProfile(
        name=spec.name,
        file=spec.file or policy.file,
        line=spec.position.line,
        index=index,
        requires=spec.requires,
        limits=effective_limits(NO_LIMITS, spec.limits, policy.limits),
        rates=_counting_requests(*accounts),
        accounts=_counting_bytes(*accounts),
    )


def _distinct(hosts: tuple[HostPattern, ...]) -> list[HostPattern]:
    """Each pattern once, however often and in whatever letters it is written."""
    return list({(host.kind, host.name, host.addresses): host for host in hosts}.values())


def _compile_deny(specs: tuple[DenySpec, ...], file: str) -> HostIndex[CompiledDeny]:
    index: HostIndex[CompiledDeny] = HostIndex()
    for spec in sorted(specs, key=lambda deny: deny.rule_id):
        for host in spec.hosts:
            place = (spec.file or file, spec.position.line)
            index.slot(host, CompiledDeny(spec.rule_id, *place, spec.reason))
    return index


def compile_penalties(spec: PolicySpec) -> dict[Reason, Penalty]:
    """Quarantine wins where a reason stands in both lists."""
    penalties: dict[Reason, Penalty] = {}
    if spec.strike is not None:
        strike = Penalty(Consequence.STRIKE, spec.strike.limit, spec.strike.window_ms)
        penalties.update(dict.fromkeys(spec.strike.on, strike))
    penalties.update(dict.fromkeys(spec.quarantine, Penalty(Consequence.QUARANTINE)))
    return penalties


def _compile_decoys(spec: PolicySpec) -> PatternSet | None:
    watched = [
        Watched(one.value.encode(), Reason.CANARY, one.rule_id)
        for one in spec.canaries
        if one.value is not None
    ]
    return PatternSet(watched) if watched else None


def compile_policy(spec: PolicySpec, digest: str) -> CompiledPolicy:
    """The judge's tables for one policy; the spec must have passed the reader."""
    specs = {rule.rule_id: rule for rule in spec.rules}
    plain = ProfileSpec("", Position(), ())
    rules = {rule.rule_id: _compile_rule(rule, spec, plain) for rule in spec.rules}
    return CompiledPolicy(
        file=spec.file,
        name=spec.name,
        digest=digest,
        mode=spec.mode,
        carriage=Carriage(spec.tls),
        rates=_counting_requests(_file_account(spec)),
        profiles={
            profile.name: _compile_profile(
                profile, spec, _compile_index(profile, spec, specs, rules)
            )
            for profile in spec.profiles
        },
        rules=rules,
        deny=_compile_deny(spec.deny, spec.file),
        penalties=compile_penalties(spec),
        ends_unix_ms=tuple(
            sorted({r.until_unix_ms for r in spec.rules if r.until_unix_ms is not None})
        ),
        spec=spec,
        canaries={
            one.rule_id: CompiledCanary(
                one.rule_id, one.file or spec.file, one.position.line, one.secret
            )
            for one in spec.canaries
        },
        decoys=_compile_decoys(spec),
    )
