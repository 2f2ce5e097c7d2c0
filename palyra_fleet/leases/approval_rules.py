"""Named rules that approve runs by themselves: what a rule is, and whether it fits who asks.

A rule names who may ask (by what the fleet verified: the launcher that vouched, the identity the
attestor gave, the machine), which tools, runs and profiles, and its limits. Of what is asked for,
tool and run are the worker's own word, so `artifact_digests` can pin what was measured. Everything
a rule says must hold; what it leaves empty under `who` says nothing, and a rule without any `who`
fits nobody. Nothing fits by default. Pure. Times: Unix ms. Source: specification 20, 3.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Final

HERE: Final = "here"
"""How a rule names the machine that the fleet runs on."""
ACTOR_PREFIX: Final = "rule:"


@dataclass(frozen=True, slots=True)
class RuleMark:
    """Which rule approved a run, as it was then: its own digest, and that of the whole file."""

    rule_id: str
    rule_sha256: str
    file_sha256: str
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, by what was verified. `launcher` is the name of the enrolled launcher that vouched;
    `machine` a paired device's id, or `here`; a digest that only the worker tells is None."""

    identity: str
    machine: str
    launcher: str | None = None
    artifact_digest_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class RunAsked:
    """What the worker wants to do: its own word."""

    run_id: str
    tool_name: str
    egress_profile: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """One rule. `lease_ms` is how long an approval holds: a run, however often renewed, ends with
    it. `at_once` counts live leases and approvals that were not used yet. With `read_only` it
    approves only runs that ask for a workspace which they cannot write to."""

    rule_id: str
    owner: str
    reason: str
    until_unix_ms: int
    tools: tuple[str, ...]
    runs: tuple[str, ...]
    profiles: tuple[str, ...]
    lease_ms: int
    uses_per_hour: int
    at_once: int
    launchers: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    artifact_digests: tuple[str, ...] = ()
    read_only: bool = False

    @property
    def sha256(self) -> str:
        """Of all that the rule says: a rule that says anything else is another rule. What it does
        not say of `read_only` is left out, so that rules of an earlier release are the same."""
        said = asdict(self)
        if not self.read_only:
            del said["read_only"]
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def misfit(self, asker: Asker, asked: RunAsked, now_unix_ms: int) -> str | None:
        """The first thing that does not fit, in the words of the file; None if all does."""
        if not (self.launchers or self.identities or self.machines):
            return "who"
        checks = self._checks(asker, asked, now_unix_ms)
        return next((name for name, fits in checks if not fits), None)

    def _checks(self, asker: Asker, asked: RunAsked, now: int) -> Iterator[tuple[str, bool]]:
        yield "until", now < self.until_unix_ms
        yield "who.launchers", not self.launchers or asker.launcher in self.launchers
        yield "who.identities", not self.identities or _any(self.identities, asker.identity)
        yield "who.machines", not self.machines or asker.machine in self.machines
        digests = self.artifact_digests
        yield "artifact_digests", not digests or asker.artifact_digest_sha256 in digests
        yield "tools", asked.tool_name in self.tools
        yield "runs", _any(self.runs, asked.run_id)
        yield "profiles", asked.egress_profile in self.profiles
        yield "read_only", asked.read_only or not self.read_only


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """Every rule in force, and the digest of the file they stand in. None at first."""

    rules: tuple[ApprovalRule, ...] = ()
    file_sha256: str = ""
    _by_id: dict[str, ApprovalRule] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, rules: Iterable[ApprovalRule], file_sha256: str) -> "ApprovalRules":
        kept = tuple(rules)
        return cls(kept, file_sha256, {rule.rule_id: rule for rule in kept})

    def fitting(self, asker: Asker, asked: RunAsked, now_unix_ms: int) -> Iterator[ApprovalRule]:
        """In the order of the file."""
        return (rule for rule in self.rules if rule.misfit(asker, asked, now_unix_ms) is None)

    def still_says(self, mark: RuleMark) -> bool:
        """Whether the rule that approved is there as it was."""
        rule = self._by_id.get(mark.rule_id)
        return rule is not None and rule.sha256 == mark.rule_sha256

    def mark(self, rule: ApprovalRule, now_unix_ms: int) -> RuleMark:
        return RuleMark(rule.rule_id, rule.sha256, self.file_sha256, now_unix_ms)


def _any(patterns: Iterable[str], value: str) -> bool:
    return any(pattern_fits(pattern, value) for pattern in patterns)


def pattern_fits(pattern: str, value: str) -> bool:
    """`*` stands once at most, for any signs or none; all else stands for itself."""
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == value
    long_enough = len(value) >= len(before) + len(after)
    return long_enough and value.startswith(before) and value.endswith(after)
