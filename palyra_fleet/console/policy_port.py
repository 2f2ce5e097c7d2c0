"""What the console asks about egress policies. The fleet knows no policies itself: whoever composes
a fleet with a proxy in one process hands in an answerer; without one the page says where to look.
All values are text for people; times are Unix ms."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RuleInForce:
    """One rule as a person looks for it. `kind` is allow or deny; `where` is file and line."""

    kind: str
    rule_id: str
    hosts: tuple[str, ...]
    methods: tuple[str, ...]
    paths: tuple[str, ...]
    profiles: tuple[str, ...]
    where: str
    owner: str | None
    until_unix_ms: int | None
    observes: bool


@dataclass(frozen=True, slots=True)
class PolicyChangeTold:
    """One difference to the policy before."""

    what: str
    where: str
    widens: bool


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """`problem` is why the file as it is now did not come into force; `changes` are told against
    the policy that was in force before, if there was one since the start."""

    name: str
    digest: str
    mode: str
    files: tuple[str, ...]
    profiles: tuple[str, ...]
    rules: tuple[RuleInForce, ...]
    problem: str | None
    changes: tuple[PolicyChangeTold, ...] | None


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """How one request would be judged. `steps` are name and finding, in the order of the judge."""

    allowed: bool
    steps: tuple[tuple[str, str], ...]


class Again(StrEnum):
    """How something that was refused would be judged now."""

    REFUSED = "refused"
    ALLOWED = "allowed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ReplayAnswer:
    """`finding` is the reason, or why there is no answer; the rule and its place are there where
    one decides."""

    again: Again
    finding: str
    rule_id: str | None = None
    where: str | None = None


class PolicyPort(Protocol):
    """Answers about the policy in force."""

    def in_force(self) -> PolicyInForce | None:
        """None while there is none yet."""

    def explain(self, profile: str, method: str, url: str) -> PolicyAnswer | None:
        """None while there is no policy."""

    def replay(self, profile: str, reason: str, target: str) -> ReplayAnswer | None:
        """Whether what was refused for `reason` would be refused now; `target` is as evidence has
        it, a method and a URL without its query. None while there is no policy."""
