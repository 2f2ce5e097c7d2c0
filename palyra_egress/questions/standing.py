"""What a proxy says of itself: which policy is in force, and why a newer one is not. Pure."""

from dataclasses import dataclass

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import Problem
from palyra_egress.questions import told
from palyra_fleet.wire.policy_models import (
    MAX_FILES,
    MAX_PROBLEMS,
    MAX_PROFILES,
    PolicyProblem,
    PolicyStanding,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy and how it came into force. `before` is the one that it replaced, if that was since
    the start; `problem` and `problems` are about the files as they are now; `signed`: people must
    have approved it."""

    policy: CompiledPolicy
    loaded_at_unix_ms: int
    before: CompiledPolicy | None = None
    problem: str | None = None
    problems: tuple[Problem, ...] = ()
    signed: bool = False


def standing_of(loaded: Loaded, budget_bytes: int = told.BUDGET_BYTES // 4) -> PolicyStanding:
    """The policy in force, in few words."""
    policy = loaded.policy
    names = sorted(policy.profiles)
    wrong = _problems(loaded)
    problems, _ = told.fitting(wrong, MAX_PROBLEMS, budget_bytes)
    return PolicyStanding(
        policy_digest=policy.digest,
        name=told.path(policy.name),
        mode=policy.mode.value,
        loaded_at_unix_ms=loaded.loaded_at_unix_ms,
        rules=len(policy.spec.rules) + len(policy.spec.deny),
        files=tuple(told.path(one) for one in policy.spec.files[:MAX_FILES]),
        profiles=tuple(told.word(one) for one in names[:MAX_PROFILES]),
        profiles_left_out=max(0, len(names) - MAX_PROFILES),
        problems=problems,
        problems_left_out=len(wrong) - len(problems),
        signed=loaded.signed,
    )


def _problems(loaded: Loaded) -> list[PolicyProblem]:
    """Those of a file with their places; else the whole sentence, as of a missing approval."""
    if loaded.problem is None:
        return []
    if loaded.problems:
        return [told.problem_of(one) for one in loaded.problems]
    return [PolicyProblem(message=told.sentence(loaded.problem))]
