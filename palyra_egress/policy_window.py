"""What the console may see of the policy in force: its rules, what changed last, how a request
would be judged, and whether what was refused still would be. Reads the running proxy and changes
nothing; times are Unix ms.
"""

from dataclasses import dataclass
from typing import Final

from palyra_egress.clock import now_unix_ms
from palyra_egress.destination.hostname import HostRefused
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import precheck
from palyra_egress.policy.explain import explain
from palyra_egress.policy.match import find_hosts
from palyra_egress.policy.policy_diff import diff_policies
from palyra_egress.policy.recorded import JUDGED
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.policy.schema import DenySpec, RuleSpec
from palyra_egress.proxy.egress_proxy import Enforcement
from palyra_egress.proxy.evidence import TARGET_CUT_AT
from palyra_egress.reasons import REASONS, Reason
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import NeedsResolution
from palyra_fleet.console.policy_port import (
    Again,
    PolicyAnswer,
    PolicyChangeTold,
    PolicyInForce,
    ReplayAnswer,
    RuleInForce,
)

_ASKER: Final = "console"
_BY_ADDRESS: Final = frozenset({Reason.PRIVATE_TARGET, Reason.METADATA_TARGET, Reason.MIXED_ANSWER})


@dataclass(slots=True)
class PolicyWindow:
    """Implements the console's PolicyPort. `enforcement` is None until the proxy has started."""

    enforcement: Enforcement | None = None

    def in_force(self) -> PolicyInForce | None:
        if self.enforcement is None:
            return None
        policy = self.enforcement.core.service.policy
        if policy is None:
            return None
        spec = policy.spec
        return PolicyInForce(
            name=policy.name,
            digest=policy.digest,
            mode=policy.mode.value,
            files=spec.files,
            profiles=tuple(policy.profiles),
            rules=(
                *(_allow(policy, rule) for rule in spec.rules),
                *(_deny(rule) for rule in spec.deny),
            ),
            problem=self.enforcement.policy_file.problem,
            changes=_changes(self.enforcement.replaced_policy, policy),
        )

    def explain(self, profile: str, method: str, url: str) -> PolicyAnswer | None:
        policy = self._policy()
        if policy is None:
            return None
        try:
            request = _request(profile, method, url)
        except HostRefused as refused:
            said = f"deny: {refused.reason.value} ({REASONS[refused.reason].title})"
            return PolicyAnswer(False, (("verdict", f"{said}: {refused.detail}"),))
        found = explain(policy, request, None, now_unix_ms())
        return PolicyAnswer(found.allowed, tuple((s.name, s.finding) for s in found.steps))

    def replay(self, profile: str, reason: str, target: str) -> ReplayAnswer | None:
        policy = self._policy()
        return None if policy is None else replayed(policy, profile, reason, target)

    def _policy(self) -> CompiledPolicy | None:
        return None if self.enforcement is None else self.enforcement.core.service.policy


def _request(profile: str, method: str, url: str) -> EgressRequest:
    """What a person or evidence names. Raises HostRefused."""
    requester = Requester(_ASKER, _ASKER, profile)
    if method == "CONNECT":
        return connect_from_authority(url, requester)
    return judge_request_from_url(method, url, requester)


def replayed(policy: CompiledPolicy, profile: str, reason: str, target: str) -> ReplayAnswer:
    """The judge asked once more, by the policy in force and without addresses."""
    known = policy.profiles.get(profile)
    if reason not in JUDGED:
        return ReplayAnswer(Again.UNKNOWN, "it was found beyond the rules, which alone cannot say")
    if len(target) >= TARGET_CUT_AT:
        return ReplayAnswer(Again.UNKNOWN, "the evidence holds only the beginning of its target")
    if known is not None and known.requires is not None:
        return ReplayAnswer(Again.UNKNOWN, "the profile demands facts that evidence does not hold")
    method, _, url = target.partition(" ")
    try:
        request = _request(profile, method, url)
    except HostRefused as refused:
        return ReplayAnswer(Again.REFUSED, refused.reason.value)
    verdict = precheck(policy, request, now_unix_ms())
    if isinstance(verdict, NeedsResolution):
        again = Again.UNKNOWN if reason in _BY_ADDRESS else Again.ALLOWED
        named = ", ".join(_rules_for(policy, request))
        return ReplayAnswer(again, f"rules: {named}; what its name resolves to decides")
    where = None if verdict.line is None else f"{verdict.policy_file}:{verdict.line}"
    again = Again.ALLOWED if verdict.allowed else Again.REFUSED
    return ReplayAnswer(again, verdict.reason.value, verdict.rule_id, where)


def _rules_for(policy: CompiledPolicy, request: EgressRequest) -> list[str]:
    """The rules of the profile that name the request's host, with their places."""
    found = find_hosts(policy.profiles[request.requester.profile].index, request, None)
    return [f"{rule.rule_id} ({rule.file}:{rule.line})" for one in found for rule in one.rules][:5]


def _allow(policy: CompiledPolicy, rule: RuleSpec) -> RuleInForce:
    named = [
        one.name
        for one in policy.spec.profiles
        if any(rule_id == rule.rule_id for rule_id, _ in one.rule_ids)
    ]
    return RuleInForce(
        kind="allow",
        rule_id=rule.rule_id,
        hosts=tuple(one.text for one in rule.hosts),
        methods=rule.methods,
        paths=() if rule.paths is None else tuple(one.text for one in rule.paths),
        profiles=tuple(named),
        where=f"{rule.file}:{rule.position.line}",
        owner=rule.owner,
        until_unix_ms=rule.until_unix_ms,
        observes=rule.observe,
    )


def _deny(rule: DenySpec) -> RuleInForce:
    return RuleInForce(
        kind="deny",
        rule_id=rule.rule_id,
        hosts=tuple(one.text for one in rule.hosts),
        methods=(),
        paths=(),
        profiles=(),
        where=f"{rule.file}:{rule.position.line}",
        owner=None,
        until_unix_ms=None,
        observes=False,
    )


def _changes(
    before: CompiledPolicy | None, now: CompiledPolicy
) -> tuple[PolicyChangeTold, ...] | None:
    if before is None:
        return None
    found = diff_policies(before.spec, now.spec)
    return tuple(
        PolicyChangeTold(one.what, f"{one.file}:{one.position.line}", one.widens) for one in found
    )
