"""How one request would be judged, and whether what was refused still would be. Pure: nothing is
resolved, and the time is an argument (Unix ms)."""

from typing import Final, Literal

from palyra_egress.destination.hostname import HostRefused
from palyra_egress.facts import UNATTESTED, AttestedFacts
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import precheck
from palyra_egress.policy.explain import explain
from palyra_egress.policy.match import find_hosts
from palyra_egress.policy.recorded import JUDGED
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.proxy.bindings import known_facts
from palyra_egress.proxy.evidence import TARGET_CUT_AT
from palyra_egress.questions import told
from palyra_egress.reasons import REASONS, Reason
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import NeedsResolution
from palyra_fleet.wire.policy_models import (
    MAX_STEPS,
    AskExplain,
    Explained,
    ExplainStep,
    Refused,
    Replayed,
)

_ASKER: Final = "fleet"
_BY_ADDRESS: Final = frozenset({Reason.PRIVATE_TARGET, Reason.METADATA_TARGET, Reason.MIXED_ANSWER})


def explained(policy: CompiledPolicy, asked: AskExplain, now_unix_ms: int) -> Explained:
    """Step by step, as `palyra-egress policy explain` tells it."""
    described = asked.request
    facts = known_facts(described.facts)
    try:
        request = _request(asked.profile, described.method, described.url, facts)
    except HostRefused as refused:
        said = f"deny: {refused.reason.value} ({REASONS[refused.reason].title}): {refused.detail}"
        return Explained(
            allowed=False,
            effect="deny",
            reason=refused.reason.value,
            steps=(ExplainStep(name="verdict", finding=told.sentence(said)),),
        )
    found = explain(policy, request, described.resolved, now_unix_ms)
    steps = (
        ExplainStep(name=told.word(one.name), finding=told.sentence(one.finding))
        for one in found.steps
    )
    shown, _ = told.fitting(steps, MAX_STEPS)
    verdict, owner = found.verdict, None if found.rule is None else found.rule.owner
    if verdict is None:
        return Explained(allowed=True, steps=shown)
    return Explained(
        allowed=found.allowed,
        effect=verdict.effect.value,
        reason=verdict.reason.value,
        rule_id=verdict.rule_id,
        where=None if verdict.line is None else told.place(verdict.policy_file, verdict.line),
        owner=None if owner is None else told.path(owner),
        steps=shown,
    )


def replayed(policy: CompiledPolicy, refused: Refused, now_unix_ms: int) -> Replayed:
    """The judge asked once more, without addresses."""
    known = policy.profiles.get(refused.profile)
    if refused.reason not in JUDGED:
        return _unknown("it was found beyond the rules, which alone cannot say")
    if len(refused.target) >= TARGET_CUT_AT:
        return _unknown("the evidence holds only the beginning of its target")
    if known is not None and known.requires is not None:
        return _unknown("the profile demands facts that evidence does not hold")
    method, _, url = refused.target.partition(" ")
    try:
        request = _request(refused.profile, method, url, UNATTESTED)
    except HostRefused as cause:
        return Replayed(again="refused", finding=cause.reason.value)
    verdict = precheck(policy, request, now_unix_ms)
    if isinstance(verdict, NeedsResolution):
        named = ", ".join(_rules_for(policy, request))
        finding = told.path(f"rules: {named}; what its name resolves to decides")
        by_address = refused.reason in _BY_ADDRESS
        return Replayed(again="unknown" if by_address else "allowed", finding=finding)
    again: Literal["allowed", "refused"] = "allowed" if verdict.allowed else "refused"
    where = None if verdict.line is None else told.place(verdict.policy_file, verdict.line)
    return Replayed(again=again, finding=verdict.reason.value, rule_id=verdict.rule_id, where=where)


def _request(profile: str, method: str, url: str, facts: AttestedFacts) -> EgressRequest:
    """What a person or evidence names. Raises HostRefused."""
    requester = Requester(_ASKER, _ASKER, profile, facts=facts)
    if method == "CONNECT":
        return connect_from_authority(url, requester)
    return judge_request_from_url(method, url, requester)


def _rules_for(policy: CompiledPolicy, request: EgressRequest) -> list[str]:
    """The rules of the profile that name the request's host, with their places."""
    found = find_hosts(policy.profiles[request.requester.profile].index, request, None)
    return [f"{rule.rule_id} ({rule.file}:{rule.line})" for one in found for rule in one.rules][:5]


def _unknown(why: str) -> Replayed:
    return Replayed(again="unknown", finding=why)
