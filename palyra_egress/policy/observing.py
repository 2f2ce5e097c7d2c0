"""What observe mode lets pass, and which `private` ranges count while it does. Pure.

A whole policy may observe, or single rules of it. A refusal that the author of a policy could mend
by a rule is then reported and let pass; a threat never is. An address that is not public passes
only if a rule that observes opens it: any of those that name the host, not the nearest alone, or
one more rule could close what another one opens.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from palyra_egress.destination.address_class import ClassifiedAddress, is_covered
from palyra_egress.policy.compile import CompiledPolicy, CompiledRule
from palyra_egress.policy.match import Candidates, Refusal, find_hosts
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest

OBSERVABLE: Final = frozenset(
    {
        Reason.HOST_NOT_ALLOWED,
        Reason.HOST_DENIED,
        Reason.PORT_NOT_ALLOWED,
        Reason.SCHEME_NOT_ALLOWED,
        Reason.METHOD_NOT_ALLOWED,
        Reason.PATH_NOT_ALLOWED,
        Reason.UPGRADE_NOT_ALLOWED,
        Reason.RULE_EXPIRED,
        Reason.BUDGET_ZERO,
    }
)
"""Refusals that observe mode lets pass: only what the author of a policy would mend by a rule."""


def observe(policy: CompiledPolicy, refusal: Refusal) -> Candidates | Refusal:
    """Turns a refusal into a pass where the policy or a live rule of this host only observes."""
    if refusal.reason not in OBSERVABLE:
        return refusal
    if refusal.observer is not None and refusal.reason is not Reason.HOST_DENIED:
        return Candidates((refusal.observer,), refusal.reason)
    if not policy.observes:
        return refusal
    rule = refusal.rule if isinstance(refusal.rule, CompiledRule) else None
    return Candidates(() if rule is None else (rule,), refusal.reason)


def observing_rules(
    policy: CompiledPolicy,
    request: EgressRequest,
    literal: ClassifiedAddress | None,
    now_unix_ms: int,
) -> Iterator[CompiledRule]:
    """The rules of this host whose `private` ranges count where a refusal is only reported: all of
    them if the whole policy observes, otherwise the live ones that do. Not the nearest alone, or a
    further rule could close what another one opens."""
    profile = policy.profiles[request.requester.profile]
    for host_rules in find_hosts(profile.index, request, literal):
        if policy.observes:
            yield from host_rules.rules
        else:
            yield from (rule for rule in host_rules.observing if rule.is_live(now_unix_ms))


def opening_observer(
    policy: CompiledPolicy,
    request: EgressRequest,
    literal: ClassifiedAddress | None,
    candidates: Candidates,
    addresses: Sequence[ClassifiedAddress],
    now_unix_ms: int,
) -> CompiledRule | None:
    """Where a rule allows the request but not these addresses: one that only observes, opens them,
    and would have let the request pass had the first not been written."""
    if candidates.would_deny is not None:
        return None
    for rule in observing_rules(policy, request, literal, now_unix_ms):
        if all(is_covered(address, rule.private) for address in addresses):
            return rule
    return None
