"""Approval grants: made by operators and rules, kept by the fleet, never a caller's word.

A new grant is unspent and for one use. Withdrawing one ends the live lease that rests on it, since
no lease outlives its grant. Pure. Times: Unix ms.
"""

from dataclasses import replace

from palyra_fleet.leases.records import LeaseStatus, WorkerApprovalGrant
from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import ends_of
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal


def create_grant(
    state: LedgerState, grant: WorkerApprovalGrant, actor: str, now_unix_ms: int
) -> Decision | Refusal:
    """Record an approval. It must be fresh: unspent, and ending after now. One that names a worker
    ends at the latest with the certificate or token that this worker is known by."""
    named = state.workers.get(grant.worker_id or "")
    ends = () if named is None else ends_of(named.proof.known_until_unix_ms)
    grant = replace(grant, expires_at_unix_ms=min((grant.expires_at_unix_ms, *ends)))
    if not grant.usable(now_unix_ms) or grant.uses or grant.max_uses != 1:
        return Refusal(FleetReason.COMMAND_INVALID, "a new grant must be unspent, for one use")
    draft = Draft(state, now_unix_ms, actor)
    draft.put(grant)
    detail: Detail = {
        "grant_id": grant.grant_id,
        "run_id": grant.run_id,
        "tool_name": grant.tool_name,
        "principal": grant.principal,
        "egress_profile": grant.egress_profile,
        "expires_at_unix_ms": grant.expires_at_unix_ms,
    }
    if grant.read_only:
        detail = {**detail, "read_only": True}
    if grant.rule is not None:
        detail = {
            **detail,
            "rule": grant.rule.rule_id,
            "rule_sha256": grant.rule.rule_sha256,
            "rules_sha256": grant.rule.file_sha256,
        }
    draft.event(EventReason.GRANT_CREATED, grant.worker_id, None, detail)
    return draft.finish()


def withdraw_grant(
    state: LedgerState, grant: WorkerApprovalGrant, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """Take an approval back. A live lease that rests on it ends with it."""
    if grant.withdrawn:
        return Refusal(FleetReason.COMMAND_INVALID, "the grant was withdrawn before")
    draft = Draft(state, now_unix_ms, actor)
    draft.put(replace(grant, withdrawn=True))
    detail: Detail = {"grant_id": grant.grant_id, "run_id": grant.run_id, "why": why}
    draft.event(EventReason.GRANT_WITHDRAWN, None, None, detail)
    lease_id = state.lease_by_run.get(grant.run_id)
    lease = None if lease_id is None else state.leases[lease_id]
    if lease is not None and lease.grant_id == grant.grant_id:
        draft.end_lease(
            lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, "the grant was withdrawn"
        )
    return draft.finish()
