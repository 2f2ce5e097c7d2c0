"""Findings about a policy that loads but may not mean what its author thinks.

Input: a compiled policy and the time in Unix milliseconds. Output: findings in the order of
the files, with codes, levels and advice from `lint_codes`. Findings that the file ignores (`lint:
ignore:`, with a reason and a date) keep that reason in `ignored`; an ignore that has expired, or
that matches nothing, is itself a finding. `rule_findings` looks at one rule; here the file as a
whole, its profiles and its ignores are looked at.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from palyra_egress.policy.compile import CompiledPolicy, compile_penalties
from palyra_egress.policy.coverage import host_covers, hosts_overlap
from palyra_egress.policy.findings import Finding
from palyra_egress.policy.lint_codes import LINT, LintCode
from palyra_egress.policy.rule_lint import Neighbours, is_empty, is_live, rule_findings
from palyra_egress.policy.schema import LintIgnore, Mode, PolicySpec, ProfileSpec, RuleSpec
from palyra_egress.policy.values import write_time
from palyra_egress.reasons import Reason
from palyra_egress.verdict import Limits
from palyra_fleet.strict_yaml.document import Position


class _Finder:
    """Makes findings of one file with the level and the advice of their code."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec

    def make(
        self,
        code: LintCode,
        message: str,
        position: Position,
        subject: str | None = None,
        file: str | None = None,
    ) -> Finding:
        """`file` None means the outermost file."""
        row = LINT[code]
        return Finding(
            file or self.spec.file,
            position,
            row.level,
            code.value,
            message,
            row.advice,
            subject=subject,
        )


def _file_findings(finder: _Finder) -> Iterator[Finding]:
    spec = finder.spec
    if not any(profile.rule_ids for profile in spec.profiles):
        yield finder.make(
            LintCode.NOTHING_ALLOWED, "no profile has a rule: everything is refused", Position()
        )
    if spec.mode is Mode.OBSERVE:
        yield finder.make(
            LintCode.OBSERVE_LEFT_ON,
            "the whole policy only observes: what it refuses passes",
            spec.mode_position or Position(),
        )
    if not spec.tests:
        yield finder.make(LintCode.NO_TESTS, "the policy has no tests", Position())


def _deny_findings(finder: _Finder) -> Iterator[Finding]:
    spec = finder.spec
    for deny in spec.deny:
        if deny.reason is None:
            yield finder.make(
                LintCode.NO_REASON,
                f"the deny rule {deny.rule_id} has no reason",
                deny.position,
                deny.rule_id,
                deny.file,
            )
        parts = [
            rule.rule_id
            for rule in spec.rules
            if any(
                hosts_overlap(denied, host) and not host_covers(denied, host)
                for denied in deny.hosts
                for host in rule.hosts
            )
        ]
        if parts:
            yield finder.make(
                LintCode.DENY_OVERLAPS_RULE,
                f"the deny rule {deny.rule_id} takes away a part of {', '.join(parts)}",
                deny.position,
                deny.rule_id,
                deny.file,
            )


def _canary_findings(finder: _Finder) -> Iterator[Finding]:
    spec = finder.spec
    costs = Reason.CANARY in compile_penalties(spec)
    for canary in spec.canaries:
        place = (canary.position, canary.rule_id, canary.file)
        if not costs:
            message = f"sending the canary {canary.rule_id} costs a worker nothing"
            yield finder.make(LintCode.CANARY_COSTS_NOTHING, message, *place)
        if canary.reason is None:
            message = f"the canary {canary.rule_id} has no reason: nobody knows where it is planted"
            yield finder.make(LintCode.NO_REASON, message, *place)


def _can_allow(rule: RuleSpec, profile: ProfileSpec, spec: PolicySpec, now_unix_ms: int) -> bool:
    denied = all(
        any(host_covers(taken, host) for deny in spec.deny for taken in deny.hosts)
        for host in rule.hosts
    )
    return (
        is_live(rule, now_unix_ms)
        and not is_empty(rule, profile.limits, spec.limits)
        and not denied
    )


def _above(own: Limits, other: Limits, marker: str) -> list[str]:
    """Limits that are set on both sides where the other is at least as strict."""
    return [
        limit.name
        for limit in fields(Limits)
        if marker in limit.name
        and (mine := getattr(own, limit.name)) is not None
        and (theirs := getattr(other, limit.name)) is not None
        and theirs <= mine
    ]


def _own_findings(
    profile: ProfileSpec, rules: Sequence[RuleSpec], spec: PolicySpec
) -> Iterator[tuple[LintCode, str]]:
    """About what the profile itself says: its demands and its limits."""
    requires = profile.requires
    if requires is not None and not requires.can_be_met:
        yield LintCode.REQUIREMENT_UNMEETABLE, "demands one of no digests: nobody can have it"
    for name in _above(profile.limits, spec.limits, "_per_"):
        yield LintCode.LIMIT_NEVER_REACHED, f"limits {name}, and the file's is as strict"
    for rule in {rule.rule_id: rule for rule in rules}.values():
        for name in _above(rule.limits, profile.limits, ""):
            yield LintCode.LIMIT_NEVER_REACHED, f"is as strict in {name} as its rule {rule.rule_id}"


def _profile_findings(finder: _Finder, now_unix_ms: int) -> Iterator[Finding]:
    spec = finder.spec
    rules = {rule.rule_id: rule for rule in spec.rules}
    has_rules = any(profile.rule_ids for profile in spec.profiles)
    for profile in spec.profiles:
        named = [rules[rule_id] for rule_id, _ in profile.rule_ids]
        for code, what in _own_findings(profile, named, spec):
            message = f"the profile {profile.name} {what}"
            yield finder.make(code, message, profile.position, profile.name, profile.file)
        if not named and has_rules:
            code, what = LintCode.PROFILE_EMPTY, "has no rules: it allows nothing"
        elif named and not any(_can_allow(rule, profile, spec, now_unix_ms) for rule in named):
            code, what = LintCode.PROFILE_ALLOWS_NOTHING, "names rules, and none can allow anything"
        else:
            continue
        message = f"the profile {profile.name} {what}"
        yield finder.make(code, message, profile.position, profile.name, profile.file)


def _matches(ignore: LintIgnore, finding: Finding) -> bool:
    wanted = ignore.rule_id or ignore.profile
    return ignore.code.value == finding.code and wanted in (None, finding.subject)


def _apply_ignores(
    finder: _Finder, findings: Sequence[Finding], now_unix_ms: int
) -> Iterator[Finding]:
    """The findings with their ignores, and findings about ignores that do nothing (any more)."""
    live = [ignore for ignore in finder.spec.ignores if now_unix_ms < ignore.until_unix_ms]
    for finding in findings:
        ignore = next((ignore for ignore in live if _matches(ignore, finding)), None)
        yield finding if ignore is None else replace(finding, ignored=ignore.reason)
    for ignore in finder.spec.ignores:
        subject = ignore.rule_id or ignore.profile
        if not any(_matches(ignore, finding) for finding in findings):
            message = f"the ignore of {ignore.code.value} matches no finding"
            code = LintCode.IGNORE_UNUSED
            yield finder.make(code, message, ignore.position, subject, ignore.file)
        elif now_unix_ms >= ignore.until_unix_ms:
            ended = write_time(ignore.until_unix_ms)
            message = f"the ignore of {ignore.code.value} ended at {ended}"
            code = LintCode.IGNORE_EXPIRED
            yield finder.make(code, message, ignore.position, subject, ignore.file)


def lint(policy: CompiledPolicy, now_unix_ms: int) -> tuple[Finding, ...]:
    """Everything worth a second look in a policy that is good."""
    finder, neighbours = _Finder(policy.spec), Neighbours(policy.spec)
    findings = [
        *_file_findings(finder),
        *(
            finder.make(
                code, f"the rule {rule.rule_id} {what}", rule.position, rule.rule_id, rule.file
            )
            for rule in policy.spec.rules
            for code, what in rule_findings(rule, neighbours, now_unix_ms)
        ),
        *_deny_findings(finder),
        *_canary_findings(finder),
        *_profile_findings(finder, now_unix_ms),
    ]
    told = _apply_ignores(finder, findings, now_unix_ms)
    order = {file: number for number, file in enumerate(policy.spec.files)}
    return tuple(sorted(told, key=lambda finding: (order.get(finding.file, -1), finding.position)))
