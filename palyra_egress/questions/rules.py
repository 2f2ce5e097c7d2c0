"""The rules in force, in parts that fit one answer, and what changed last. Pure."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.policy_diff import diff_policies
from palyra_egress.policy.schema import DenySpec, RuleSpec
from palyra_egress.questions import told
from palyra_egress.questions.standing import Loaded, standing_of
from palyra_fleet.wire.policy_models import (
    MAX_CHANGES,
    MAX_NAMED,
    MAX_RULES,
    PolicyChange,
    RuleInForce,
    RulesTold,
)


def rules_from(loaded: Loaded, start: int) -> RulesTold:
    """The rules from number `start` on, those that allow first; with the first of them the changes
    against the policy before."""
    standing = standing_of(loaded)
    room = told.BUDGET_BYTES - len(standing.model_dump_json().encode())
    changes, left_out = None, 0
    if start == 0 and loaded.before is not None:
        changes, left_out, size = changes_told(loaded.before, loaded.policy, room // 2)
        room -= size
    rules, _ = told.fitting(islice(_rules(loaded.policy), start, None), MAX_RULES, room)
    end = start + len(rules)
    return RulesTold(
        standing=standing,
        rules=rules,
        following=end if rules and end < standing.rules else None,
        changes=changes,
        changes_left_out=left_out,
    )


def changes_told(
    before: CompiledPolicy, now: CompiledPolicy, budget_bytes: int
) -> tuple[tuple[PolicyChange, ...], int, int]:
    """What `now` changes, how much of it did not fit, and how many bytes it takes."""
    found = diff_policies(before.spec, now.spec)
    shown, size = told.fitting(map(told.change_of, found), MAX_CHANGES, budget_bytes)
    return shown, len(found) - len(shown), size


def _rules(policy: CompiledPolicy) -> Iterator[RuleInForce]:
    spec = policy.spec
    return chain((_allow(policy, rule) for rule in spec.rules), map(_deny, spec.deny))


def _allow(policy: CompiledPolicy, rule: RuleSpec) -> RuleInForce:
    hosts = [one.text for one in rule.hosts]
    paths = [] if rule.paths is None else [one.text for one in rule.paths]
    profiles = [
        one.name
        for one in policy.spec.profiles
        if any(rule_id == rule.rule_id for rule_id, _ in one.rule_ids)
    ]
    return RuleInForce(
        kind="allow",
        rule_id=told.word(rule.rule_id),
        hosts=_few(hosts),
        hosts_in_all=len(hosts),
        methods=_few(rule.methods),
        paths=_few(paths),
        paths_in_all=len(paths),
        profiles=_few(profiles),
        profiles_in_all=len(profiles),
        where=told.place(rule.file, rule.position.line),
        owner=None if rule.owner is None else told.path(rule.owner),
        until_unix_ms=rule.until_unix_ms,
        observes=rule.observe,
    )


def _deny(rule: DenySpec) -> RuleInForce:
    hosts = [one.text for one in rule.hosts]
    return RuleInForce(
        kind="deny",
        rule_id=told.word(rule.rule_id),
        hosts=_few(hosts),
        hosts_in_all=len(hosts),
        where=told.place(rule.file, rule.position.line),
    )


def _few(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(told.path(one) for one in texts[:MAX_NAMED])
