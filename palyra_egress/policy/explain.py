"""Says step by step how a request is judged, for people who want to know why.

Input: a policy, a canonical request, the resolved addresses if known, the time. Output: an
`Explanation`: the steps with their outcome, the verdict (or the name that would be resolved next),
and the rule that decided or came nearest, with its owner. It judges nothing itself: the verdict
comes from `decide`, and the steps show the tables the judge used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from palyra_egress.destination.address_class import AddressClass, classify
from palyra_egress.policy.compile import (
    CompiledDeny,
    CompiledPolicy,
    CompiledProfile,
    CompiledRule,
    rule_account,
)
from palyra_egress.policy.credential_changes import describe_binding
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.policy.match import find_hosts
from palyra_egress.policy.paths import read_path
from palyra_egress.policy.requirements import Unmet, describe, unmet
from palyra_egress.policy.smallest_edit import Edit, near_words, smallest_edit
from palyra_egress.policy.values import write_size
from palyra_egress.reasons import REASONS, Reason, ReasonClass
from palyra_egress.request import EgressRequest, RequestKind
from palyra_egress.verdict import USUAL_TLS, Account, Limits, NeedsResolution, TlsMode, Verdict


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at, and what was found."""

    name: str
    finding: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`verdict` is None if the answer depends on addresses that were not given; `unmet` are the
    demands of the profile that the worker's facts do not meet; `edit` is the smallest one of the
    policy that would allow a refused request, if there is a small one."""

    steps: tuple[Step, ...]
    verdict: Verdict | None
    rule: CompiledRule | None
    unmet: tuple[Unmet, ...] = ()
    edit: Edit | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict is None or self.verdict.allowed

    @property
    def lines(self) -> list[str]:
        """The explanation as text, one step a line."""
        return [f"{step.name:<10} {step.finding}" for step in self.steps]


def _line(policy: CompiledPolicy, rule: CompiledRule | CompiledDeny) -> str:
    """Where a rule stands, with its file where the policy has several."""
    return f"line {rule.line}" if rule.file == policy.file else f"{rule.file}:{rule.line}"


def _requirement_steps(profile: CompiledProfile, missed: Sequence[Unmet]) -> list[Step]:
    """What the profile demands of the worker, and each demand that is not met."""
    if profile.requires is None:
        return []
    told = [f"{one.fact}: {one.expected}; seen: {one.seen}" for one in missed]
    return [Step("requires", describe(profile.requires)), *(Step("unmet", one) for one in told)]


def _request_steps(
    policy: CompiledPolicy, request: EgressRequest, missed: Sequence[Unmet]
) -> list[Step]:
    literal = classify(request.host)
    is_literal = literal.address_class is not AddressClass.UNPARSABLE
    what = f"an IP literal, {literal.address_class.value}" if is_literal else "a name"
    steps = [
        Step("request", f"{request.method} {request.url}"),
        Step("host", f"{request.host} is {what}"),
    ]
    if request.kind is RequestKind.REQUEST:
        form = read_path(request.path)
        steps.append(Step("path", "malformed" if form is None else f"compared as {form.form}"))
    denied = find_hosts(policy.deny, request, literal if is_literal else None)
    steps.append(
        Step(
            "deny", f"{denied[0].rule_id}, {_line(policy, denied[0])}" if denied else "no deny rule"
        )
    )
    profile = policy.profiles.get(request.requester.profile)
    if profile is None:
        known = ", ".join(sorted(policy.profiles)) or "none"
        return [*steps, Step("profile", f"{request.requester.profile!r} is none of: {known}")]
    steps += [Step("profile", profile.name), *_requirement_steps(profile, missed)]
    named = [
        f"{rule.rule_id} ({_line(policy, rule)})"
        for host_rules in find_hosts(profile.index, request, literal if is_literal else None)
        for rule in host_rules.rules
    ]
    steps.append(Step("rules", ", ".join(named[:10]) if named else "none names this host"))
    return steps


def _limits_told(limits: Limits, marker: str) -> str:
    """The limits whose names hold the marker, as a policy writes them."""
    given = (
        (limit.name, value)
        for limit in fields(Limits)
        if marker in limit.name and (value := getattr(limits, limit.name)) is not None
    )
    return ", ".join(
        f"{name} {write_size(value) if 'bytes' in name else value}" for name, value in given
    )


def _limit_steps(
    policy: CompiledPolicy, request: EgressRequest, verdict: Verdict
) -> Iterator[Step]:
    """The sizes that hold for an allowed request, and every rate, by what is counted together."""
    profile = policy.profiles.get(request.requester.profile)
    if not verdict.allowed or profile is None:
        return
    sizes = _limits_told(verdict.limits, "max_")
    if sizes:
        yield Step("limits", sizes)
    own = Account(rule_account(verdict.rule_id), verdict.limits)
    accounts = {one.name: one for one in (own, *verdict.accounts, *profile.rates)}
    for account in accounts.values():
        rates = _limits_told(account.limits, "_per_")
        if rates:
            yield Step("counted", f"{account.name}: {rates}")


def _verdict_steps(verdict: Verdict, rule: CompiledRule | None) -> list[Step]:
    row = REASONS[verdict.reason]
    told = f"{verdict.effect.value}: {verdict.reason.value} ({row.title})"
    if verdict.would_deny is not None:
        told += f"; would be refused: {verdict.would_deny.value}"
    steps = [Step("verdict", told)]
    if verdict.rule_id is not None:
        word = "rule" if verdict.allowed else "nearest"
        word = "canary" if verdict.reason is Reason.CANARY else word
        owner = "" if rule is None or rule.owner is None else f", owner {rule.owner}"
        place = f"{verdict.policy_file}:{verdict.line}"
        steps.append(Step(word, f"{verdict.rule_id} at {place}{owner}"))
    elif verdict.reason is Reason.PROFILE_REQUIREMENTS:
        steps.append(Step("profile at", f"{verdict.policy_file}:{verdict.line}"))
    if verdict.allowed and verdict.tls is TlsMode.TUNNEL:
        steps.append(Step("tls", "the tunnel may be passed on: what is inside is not seen"))
    steps += [Step("credential", describe_binding(one)) for one in verdict.credentials]
    if verdict.upstream_tls != USUAL_TLS:
        steps.append(Step("server", str(verdict.upstream_tls)))
    if verdict.pinned:
        steps.append(Step("pinned", ", ".join(verdict.pinned)))
    if verdict.consequence.value != "none":
        steps.append(Step("costs", verdict.consequence.value))
    return steps


def _missed(policy: CompiledPolicy, request: EgressRequest) -> tuple[Unmet, ...]:
    profile = policy.profiles.get(request.requester.profile)
    if profile is None or profile.requires is None:
        return ()
    return tuple(unmet(profile.requires, request.requester.facts))


def _no_edit(reason: Reason) -> str:
    is_floor = reason in (Reason.METADATA_TARGET, Reason.PROXY_TARGET)
    if is_floor or REASONS[reason].reason_class is ReasonClass.CLIENT:
        return "no policy allows this"
    return "none that is small"


def explain(
    policy: CompiledPolicy,
    request: EgressRequest,
    resolved: Sequence[str] | None,
    now_unix_ms: int,
) -> Explanation:
    """How the request is judged; `resolved` None stops where the name would be resolved."""
    missed = _missed(policy, request)
    steps = _request_steps(policy, request, missed)
    answer = precheck(policy, request, now_unix_ms)
    if isinstance(answer, NeedsResolution):
        if resolved is None:
            steps.append(Step("verdict", f"allowed if every address of {answer.host} passes"))
            return Explanation(tuple(steps), None, None, missed)
        for address in resolved:
            steps.append(Step("address", f"{address} is {classify(address).address_class.value}"))
        answer = decide(policy, request, resolved, now_unix_ms)
    rule = None if answer.rule_id is None else policy.rules.get(answer.rule_id)
    steps += [*_verdict_steps(answer, rule), *_limit_steps(policy, request, answer)]
    if answer.allowed:
        return Explanation(tuple(steps), answer, rule, missed)
    near = near_words(policy, request, answer)
    edit = smallest_edit(policy, request, answer, resolved, now_unix_ms)
    if near is not None:
        steps.append(Step("nearest", near))
    steps.append(Step("edit", str(edit) if edit is not None else _no_edit(answer.reason)))
    return Explanation(tuple(steps), answer, rule, missed, edit)
