"""One recorded verdict of the audit log, read back as the request that was judged.

Input: an entry of the log as a mapping. Output: a `Recorded` request with its time, addresses and
answer; or why it cannot be judged again (`NotJudgeable`); or None for entries that are no verdicts.
What the log does not hold is not made up: queries are not recorded (no rule reads them), a refusal
before the request could be read has no target, a target that was cut has lost its path, and what
was refused outside the policy (identity, lease, rate, quarantine, resolver, our own faults) says
nothing about a policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from palyra_egress.destination.hostname import HostRefused
from palyra_egress.facts import read_facts
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.policy.observing import OBSERVABLE
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import Verdict

MAX_TARGET: Final = 2048
"""Characters of a target that the audit log keeps; a target of this length may have been cut."""

JUDGED: Final = OBSERVABLE | {
    Reason.ALLOWED,
    Reason.OBSERVED,
    Reason.PROFILE_UNKNOWN,
    Reason.PROFILE_REQUIREMENTS,
    Reason.PATH_MALFORMED,
    Reason.PRIVATE_TARGET,
    Reason.METADATA_TARGET,
    Reason.MIXED_ANSWER,
}
"""Reasons that come from the judge and its policy alone."""


class NotJudgeable(StrEnum):
    """Why a recorded verdict cannot be judged again."""

    EARLY = "refused before a request could be read: no target is recorded"
    OUTSIDE = "refused outside the policy (identity, lease, rate, quarantine, resolver, fault)"
    CUT = "the target was too long and is recorded without its end"
    UNREADABLE = "the entry does not hold what a verdict holds"
    NO_FACTS = "the entry holds no facts about the worker, and the profile demands some"


class Answer(StrEnum):
    """What became, or would become, of a request."""

    ALLOWED = "allowed"
    OBSERVED = "observed"
    REFUSED = "refused"
    UNRESOLVED = "allowed if its addresses pass"

    @property
    def passes(self) -> bool:
        return self is not Answer.REFUSED


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer with its reason (in observe mode: what would refuse) and the rule that gave it."""

    answer: Answer
    reason: Reason
    rule_id: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        if self.answer in (Answer.ALLOWED, Answer.UNRESOLVED):
            return self.answer.value
        return f"{self.answer.value} {self.reason.short}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A verdict that can be judged again. `has_facts` is False for entries from before the log
    held what was known about the worker."""

    at_unix_ms: int
    request: EgressRequest
    addresses: tuple[str, ...]
    outcome: Outcome
    has_facts: bool = True

    @property
    def profile(self) -> str:
        return self.request.requester.profile

    @property
    def target(self) -> str:
        return f"{self.request.method} {self.request.url}"


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _request(entry: Mapping[str, object], profile: str | None) -> EgressRequest:
    worker_id, lease_id = _text(entry, "worker_id"), _text(entry, "lease_id")
    named = _text(entry, "profile") if profile is None else profile
    run_id, facts = _text(entry, "run_id"), read_facts(entry)
    requester = Requester(worker_id, lease_id, named, run_id, facts=facts)
    method, target = _text(entry, "method"), _text(entry, "target")
    if method == "CONNECT":
        return connect_from_authority(target, requester)
    return judge_request_from_url(method, target, requester)


def _outcome(entry: Mapping[str, object], reason: Reason, would_deny: Reason | None) -> Outcome:
    line = entry.get("policy_line")
    rule_id = _text(entry, "rule_id") or None
    answer = Answer.ALLOWED if _text(entry, "effect") == "allow" else Answer.REFUSED
    if would_deny is not None:
        answer = Answer.OBSERVED
    return Outcome(answer, would_deny or reason, rule_id, line if isinstance(line, int) else None)


def read_recorded(
    entry: Mapping[str, object], profile: str | None = None
) -> Recorded | NotJudgeable | None:
    """The request behind one entry; `profile` takes the place of the recorded one."""
    if entry.get("kind") != "verdict":
        return None
    if entry.get("early") is True:
        return NotJudgeable.EARLY
    at_unix_ms, addresses = entry.get("at_unix_ms"), entry.get("addresses")
    try:
        reason = Reason(_text(entry, "reason"))
        would = _text(entry, "would_deny")
        would_deny = Reason(would) if would else None
        if not isinstance(at_unix_ms, int) or not isinstance(addresses, list):
            return NotJudgeable.UNREADABLE
        if reason not in JUDGED:
            return NotJudgeable.OUTSIDE
        if len(_text(entry, "target")) >= MAX_TARGET:
            return NotJudgeable.CUT
        request = _request(entry, profile)
    except (HostRefused, ValueError):
        return NotJudgeable.UNREADABLE
    texts = tuple(str(address) for address in addresses)
    outcome = _outcome(entry, reason, would_deny)
    return Recorded(at_unix_ms, request, texts, outcome, "binding_level" in entry)


def lacks_facts(policy: CompiledPolicy, recorded: Recorded) -> bool:
    """True if the policy would ask for facts that the entry does not hold."""
    profile = policy.profiles.get(recorded.profile)
    return not recorded.has_facts and profile is not None and profile.requires is not None


def judge_again(policy: CompiledPolicy, recorded: Recorded) -> Outcome:
    """What the policy says about a recorded request at its own time and with its own addresses.

    Where it was refused before its name was resolved there are no addresses: then the answer is
    UNRESOLVED, or a refusal that needs none.
    """
    verdict = precheck(policy, recorded.request, recorded.at_unix_ms)
    if not isinstance(verdict, Verdict):
        if not recorded.addresses:
            return Outcome(Answer.UNRESOLVED, Reason.ALLOWED)
        verdict = decide(policy, recorded.request, recorded.addresses, recorded.at_unix_ms)
    if verdict.would_deny is not None:
        return Outcome(Answer.OBSERVED, verdict.would_deny, verdict.rule_id, verdict.line)
    answer = Answer.ALLOWED if verdict.allowed else Answer.REFUSED
    return Outcome(answer, verdict.reason, verdict.rule_id, verdict.line)
