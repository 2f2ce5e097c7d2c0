"""Where rules meet that give different things, and it is not certain which of them decides.

Input: two policies' models, and what a rule gives beside its permission (credentials, a way to meet
the server). Output: each profile and rule that gives some, meets a rule that gives something else
in either policy, and stands among rules that are not what they were: there, which requests get what
may have changed, though no pair of grants shows it (time, addresses, patterns that overlap in
part).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from palyra_egress.policy.coverage import hosts_overlap, paths_overlap
from palyra_egress.policy.grants import rules_of
from palyra_egress.policy.meaning import Meaning, meaning
from palyra_egress.policy.schema import PolicySpec, RuleSpec


def _meet(one: RuleSpec, other: RuleSpec) -> bool:
    """Whether some request may be matched by both, at some time."""
    return (
        any(hosts_overlap(mine, theirs) for mine in one.hosts for theirs in other.hosts)
        and bool(set(one.endpoints) & set(other.endpoints))
        and bool(set(one.methods) & set(other.methods))
        and any(
            paths_overlap(mine, theirs)
            for mine in (one.paths if one.paths is not None else (None,))
            for theirs in (other.paths if other.paths is not None else (None,))
        )
    )


def _of_profile(spec: PolicySpec, profile: str) -> list[RuleSpec]:
    rules = [rule for name, rule in rules_of(spec) if name == profile]
    return sorted(rules, key=lambda rule: rule.rule_id)


def _judged(rules: list[RuleSpec]) -> Meaning:
    """What of these rules decides a request."""
    return meaning(tuple(replace(rule, owner=None, reason=None) for rule in rules))


def uncertain(
    old: PolicySpec, new: PolicySpec, given: Callable[[RuleSpec], object]
) -> Iterator[tuple[str, RuleSpec]]:
    """Each such profile and rule, the new policy's before the old one's. `given` is what a rule
    gives; what is empty or false gives nothing."""
    known = {profile.name for profile in old.profiles}
    for profile in (one.name for one in new.profiles if one.name in known):
        before, after = _of_profile(old, profile), _of_profile(new, profile)
        for rule in (*after, *before):
            if not given(rule):
                continue
            were = [other for other in before if _meet(rule, other)]
            are = [other for other in after if _meet(rule, other)]
            differ = any(given(other) != given(rule) for other in (*were, *are))
            if differ and _judged(were) != _judged(are):
                yield profile, rule
