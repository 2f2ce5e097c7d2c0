"""What is open is judged again: when another policy comes into force, and when a rule's time ends.

`Review` says when that is due. `judge_again` answers for one open tunnel or exchange, under the
policy in force now and with the addresses it is pinned to (nothing is resolved again): the same
grant with today's budgets, or a refusal, which is in the audit log then. Being judged again costs a
worker nothing: it did nothing.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace

from palyra_egress.audit.entries import revoked_entry
from palyra_egress.audit.log import AuditUnavailable
from palyra_egress.credentials.binding import CredentialBinding
from palyra_egress.credentials.request_scan import redacted
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.proxy.core import EnforcementCore
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, RequestKind
from palyra_egress.verdict import NeedsResolution


@dataclass(slots=True)
class Review:
    """When everything open was last known to be allowed: under which policy, at what time."""

    policy: CompiledPolicy | None
    at_unix_ms: int

    def is_due(self, policy: CompiledPolicy | None, now_unix_ms: int) -> bool:
        """Whether something may have changed since the last time it was due."""
        before, self.policy = self.policy, policy
        since, self.at_unix_ms = self.at_unix_ms, now_unix_ms
        if policy is not before:
            return True
        ends = () if policy is None else policy.ends_unix_ms
        return bisect_right(ends, since) != bisect_right(ends, now_unix_ms)


def _named(credentials: tuple[CredentialBinding, ...]) -> list[CredentialBinding]:
    """The bindings, whatever their rule is called."""
    return [one._replace(rule_id="") for one in credentials]


def judge_again(core: EnforcementCore, request: EgressRequest, held: Judgement) -> Judgement:
    """The grant as it holds now; `allowed` is false if it does not hold any more."""
    now = core.clocks.now_unix_ms()
    request = core.with_facts(request)
    verdict = core.service.precheck(request, now)
    if isinstance(verdict, NeedsResolution):
        verdict = core.service.decide(request, held.addresses, now, verdict)
    reason = verdict.reason
    if verdict.allowed:
        is_same_way = verdict.tls is held.carriage.mode or request.kind is RequestKind.REQUEST
        has_its_credentials = _named(verdict.credentials) == _named(held.credentials)
        tls = held.server_tls
        is_met_alike = tls is not None and tls.names == verdict.upstream_tls
        if (
            is_same_way
            and has_its_credentials
            and is_met_alike
            and set(held.pinned) <= set(verdict.pinned)
        ):
            return replace(held, limits=verdict.limits, accounts=verdict.accounts)
        reason = Reason.POLICY_CHANGED
    written = redacted(core.leaks.watch(core.service.policy).sets, request)
    try:
        core.audit.append(revoked_entry(held.decision_id, reason, verdict, written, now))
    except AuditUnavailable:
        core.connections.cut_everything(Reason.AUDIT_UNAVAILABLE)
    return replace(held, reason=reason, allowed=False, pinned=())
