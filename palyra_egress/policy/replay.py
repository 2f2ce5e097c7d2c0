"""What a policy would have changed about recorded traffic.

Input: entries of the audit log and a policy. Output: the requests whose answer changes, grouped by
profile, target and change with their counts; how many stay the same; and how many could not be
judged again, by why. Each request is judged at its own recorded time with its own recorded
addresses, and alone: rates, strikes and quarantine are not replayed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.recorded import (
    Answer,
    NotJudgeable,
    Outcome,
    judge_again,
    lacks_facts,
    read_recorded,
)


@dataclass(frozen=True, slots=True)
class ReplayGroup:
    """Requests of one profile to one target whose answer changes in the same way."""

    profile: str
    target: str
    before: Outcome
    after: Outcome

    @property
    def breaks(self) -> bool:
        """True if what passed is refused now."""
        return self.before.answer.passes and not self.after.answer.passes

    @property
    def opens(self) -> bool:
        """True if what was refused passes now."""
        return not self.before.answer.passes and self.after.answer.passes


@dataclass(frozen=True, slots=True)
class Replay:
    """`groups` are sorted: what breaks first, then by count; `same` requests have no group."""

    groups: tuple[tuple[ReplayGroup, int], ...]
    same: int
    not_judged: Mapping[NotJudgeable, int]

    @property
    def broken(self) -> int:
        """How many requests passed and would be refused."""
        return sum(count for group, count in self.groups if group.breaks)


def _stays(before: Outcome, after: Outcome) -> bool:
    """An allowed request stays allowed by whichever rule; a refused one keeps its reason."""
    if after.answer is Answer.UNRESOLVED:
        return before.answer is Answer.ALLOWED
    if before.answer is not after.answer:
        return False
    return before.answer is Answer.ALLOWED or before.reason is after.reason


def replay(
    entries: Iterable[Mapping[str, object]], policy: CompiledPolicy, profile: str | None = None
) -> Replay:
    """Judges every recorded verdict again; `profile` takes the place of the recorded ones."""
    groups: Counter[ReplayGroup] = Counter()
    missed: Counter[NotJudgeable] = Counter()
    same = 0
    for entry in entries:
        recorded = read_recorded(entry, profile)
        if isinstance(recorded, NotJudgeable):
            missed[recorded] += 1
        elif recorded is not None and lacks_facts(policy, recorded):
            missed[NotJudgeable.NO_FACTS] += 1
        elif recorded is not None:
            after = judge_again(policy, recorded)
            if _stays(recorded.outcome, after):
                same += 1
            else:
                group = ReplayGroup(recorded.profile, recorded.target, recorded.outcome, after)
                groups[group] += 1
    order = sorted(
        groups.items(),
        key=lambda item: (not item[0].breaks, not item[0].opens, -item[1], item[0].target),
    )
    return Replay(tuple(order), same, dict(missed))
