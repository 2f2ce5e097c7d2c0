"""Changes between two policies that open and close no destination: budgets, costs, papers.

Input: two policies' models. Output: `Minor` changes with a direction: 1 looser, -1 stricter, 0
neither. Budgets are compared where they apply: for each grant of either side, the budgets of the
grant that decides there before and after. A reason that costs a worker less than before, or later,
is looser.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import NamedTuple

from palyra_egress.policy.compile import Penalty, compile_penalties
from palyra_egress.policy.grants import Grant, GrantIndex, grants_of, is_denied
from palyra_egress.policy.meaning import meaning
from palyra_egress.policy.schema import PolicySpec
from palyra_egress.policy.values import write_duration, write_size
from palyra_egress.verdict import Consequence, Limits
from palyra_fleet.strict_yaml.document import Position


class Minor(NamedTuple):
    direction: int
    what: str
    position: Position = Position()
    subject: str | None = None
    file: str | None = None


def _budget(limit_bytes: int | None) -> str:
    return "no limit" if limit_bytes is None else write_size(limit_bytes)


def _direction(before: int | None, after: int | None) -> int:
    """1 if the limit grew or went, -1 if it shrank or came."""
    if before == after:
        return 0
    if after is None:
        return 1
    return -1 if before is None or after < before else 1


def _rate(rate: int | None) -> str:
    return "no limit" if rate is None else str(rate)


def _budget_changes(before: Grant, after: Grant) -> Iterator[Minor]:
    rule = after.rule
    for name in (budget.name for budget in fields(Limits)):
        old, new = getattr(before.limits, name), getattr(after.limits, name)
        direction = _direction(old, new)
        if direction:
            show = _budget if "bytes" in name else _rate
            what = f"{rule.rule_id}: {name} {show(old)} → {show(new)}"
            if before.rule.rule_id != rule.rule_id:
                what += f" (was decided by {before.rule.rule_id})"
            yield Minor(direction, what, rule.position, rule.rule_id, rule.file)


def decided_before_and_after(old: PolicySpec, new: PolicySpec) -> Iterator[tuple[Grant, Grant]]:
    """For all that both policies allow, the grants that decide it before and after."""
    before, after = list(grants_of(old)), list(grants_of(new))
    old_index, new_index = GrantIndex(before), GrantIndex(after)
    for grant in (*after, *before):
        if is_denied(grant.host, old) or is_denied(grant.host, new):
            continue  # given on one side only: that is a destination opened or closed
        was, now = old_index.covering(grant), new_index.covering(grant)
        if was is not None and now is not None:
            yield was, now


def _budgets(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    for was, now in decided_before_and_after(old, new):
        if was.limits != now.limits:
            yield from _budget_changes(was, now)


def _logged_queries(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """What of the requests is written down; more of it is for somebody to agree to."""
    for was, now in decided_before_and_after(old, new):
        before, after = was.rule.log_query, now.rule.log_query
        if before != after:
            what = f"{now.rule.rule_id}: queries are {'now' if after else 'no longer'} written down"
            where = (now.rule.position, now.rule.rule_id, now.rule.file)
            yield Minor(1 if after else -1, what, *where)


_SHARED_RATES = tuple(limit.name for limit in fields(Limits) if "_per_" in limit.name)
"""What file and profiles count for all their rules together; sizes are compared by grant."""


def _rate_changes(was: Limits, now: Limits, whose: str) -> Iterator[tuple[int, str]]:
    for name in _SHARED_RATES:
        before, after = getattr(was, name), getattr(now, name)
        if before != after:
            show = _budget if "bytes" in name else _rate
            yield _direction(before, after), f"{whose}{name} {show(before)} → {show(after)}"


def _rates(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    for direction, what in _rate_changes(old.limits, new.limits, ""):
        yield Minor(direction, what)
    known = {profile.name: profile for profile in old.profiles}
    for profile in new.profiles:
        before = known.get(profile.name)
        if before is None:
            continue
        whose = f"profile {profile.name}: "
        for direction, what in _rate_changes(before.limits, profile.limits, whose):
            yield Minor(direction, what, profile.position, profile.name, profile.file)


_STRENGTH = {Consequence.NONE: 0, Consequence.STRIKE: 1, Consequence.QUARANTINE: 2}


def _cost(penalty: Penalty | None) -> str:
    if penalty is None:
        return "nothing"
    if penalty.consequence is not Consequence.STRIKE:
        return penalty.consequence.value
    return f"a strike, {penalty.limit} in {write_duration(penalty.window_ms)} quarantine"


def _costs(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    before, after = compile_penalties(old), compile_penalties(new)
    for reason in sorted({*before, *after}):
        was, now = before.get(reason), after.get(reason)
        if was == now:
            continue
        old_rank = 0 if was is None else _STRENGTH[was.consequence]
        new_rank = 0 if now is None else _STRENGTH[now.consequence]
        is_weaker = new_rank < old_rank
        if was is not None and now is not None and new_rank == old_rank:
            is_weaker = now.limit > was.limit or now.window_ms < was.window_ms
        words = f"{_cost(was)} → {_cost(now)}"
        yield Minor(1 if is_weaker else -1, f"{reason.short} costs {words}")


def _canaries(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """Decoys by what is watched for, which no text shows."""
    before = {(canary.value, canary.secret): canary for canary in old.canaries}
    after = {(canary.value, canary.secret): canary for canary in new.canaries}
    for watched in {**before, **after}:
        was, now = before.get(watched), after.get(watched)
        if now is None and was is not None:
            what = f"the value of the canary {was.rule_id} is no longer watched for"
            yield Minor(1, what, was.position, was.rule_id, was.file)
        elif was is None and now is not None:
            what = f"the value of the canary {now.rule_id} is now watched for"
            yield Minor(-1, what, now.position, now.rule_id, now.file)
        elif was is not None and now is not None and meaning(was) != meaning(now):
            what = f"the canary {now.rule_id}: id, owner or reason is another"
            yield Minor(0, what, now.position, now.rule_id, now.file)


def _papers(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """Names, owners, reasons, tests and ignores."""
    if old.name != new.name:
        yield Minor(0, f"the name {old.name} → {new.name}")
    for name, was, now in (
        ("tests", meaning(old.tests), meaning(new.tests)),
        ("lint ignores", meaning(old.ignores), meaning(new.ignores)),
    ):
        if was != now:
            yield Minor(0, f"the {name} are others")
    rules = {rule.rule_id: rule for rule in old.rules}
    for rule in new.rules:
        known = rules.get(rule.rule_id)
        if known is not None and (known.owner, known.reason) != (rule.owner, rule.reason):
            what = f"{rule.rule_id}: owner or reason is another"
            yield Minor(0, what, rule.position, rule.rule_id, rule.file)
    profiles = {profile.name for profile in old.profiles}
    for profile in new.profiles:
        if profile.name not in profiles:
            what = f"a new profile {profile.name}"
            yield Minor(0, what, profile.position, profile.name, profile.file)
    for gone in sorted(profiles - {profile.name for profile in new.profiles}):
        yield Minor(0, f"the profile {gone} is gone", subject=gone)


def minor_changes(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """Each change once."""
    kinds = (_budgets, _logged_queries, _rates, _costs, _canaries, _papers)
    yield from dict.fromkeys(change for find in kinds for change in find(old, new))
