"""What accepted evidence does to the fleet, as one decision. Pure.

Evidence, the proxy's place in its chain, the quarantine with its lease revocation, and the events
are one decision and so one transaction: an acknowledged quarantine is durable with its reason. What
names a lease this fleet never gave is logged under no worker: it accuses, and proves nothing.
"""

from dataclasses import replace

from palyra_fleet.ledger.decision import (
    Decision,
    Detail,
    EnrolledKey,
    EventReason,
    EvidenceRecord,
    LedgerEvent,
)
from palyra_fleet.ledger.draft import FLEET_ACTOR
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.refusals import Refusal
from palyra_fleet.violations.intake import EvidenceOutcome, VerifiedEvidence

NOT_BOUND = "not_bound"
"""`why` of an event about evidence that names a lease the fleet never gave."""


def violation_decision(
    manager: WorkerFleetManager,
    proxy: EnrolledKey,
    evidence: VerifiedEvidence,
    outcome: EvidenceOutcome,
    bound: bool,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Record the evidence and do what `outcome` says. `bound`: the fleet knows that lease."""
    payload = evidence.payload
    now = manager.effective_now(now_unix_ms)
    record = EvidenceRecord(
        evidence_sha256=evidence.sha256,
        proxy_id=proxy.name,
        seq=payload.seq,
        worker_id=payload.worker_id,
        received_at_unix_ms=now,
        at_unix_ms=payload.at_unix_ms,
        outcome=outcome,
        payload=evidence.payload_bytes,
    )
    moved = replace(proxy, seq=payload.seq, last_sha256=evidence.sha256)
    if outcome == "quarantined":
        decision = manager.quarantine(
            payload.worker_id,
            f"proxy:{proxy.name}",
            payload.reason,
            now,
            EventReason.QUARANTINED_BY_EGRESS,
            evidence.sha256,
            payload.decision_id,
        )
    else:
        struck = outcome == "struck"
        reason = EventReason.VIOLATION_STRUCK if struck else EventReason.VIOLATION_RECORDED
        event = _event(reason, proxy, evidence, outcome) if bound else _unbound(proxy, evidence)
        decision = Decision(now, events=(event,))
        if outcome == "already_quarantined":
            decision = _with_request_voided(manager, evidence, decision)
    if isinstance(decision, Refusal):
        return decision
    return replace(decision, records=(*decision.records, record, moved))


def _with_request_voided(
    manager: WorkerFleetManager, evidence: VerifiedEvidence, decision: Decision
) -> Decision | Refusal:
    """Whoever asked for the worker's release did not see this evidence."""
    now, why = decision.at_unix_ms, "there is further evidence of a violation"
    voided = manager.void_release(evidence.payload.worker_id, FLEET_ACTOR, why, now)
    if isinstance(voided, Refusal):
        return voided
    return replace(voided, events=(*decision.events, *voided.events))


def _event(
    reason: EventReason, proxy: EnrolledKey, evidence: VerifiedEvidence, outcome: str
) -> LedgerEvent:
    payload = evidence.payload
    detail: Detail = {
        "outcome": outcome,
        "why": payload.reason,
        "rule_id": payload.rule_id,
        "decision_id": payload.decision_id,
        "evidence_sha256": evidence.sha256,
        "evidence_seq": payload.seq,
    }
    return LedgerEvent(reason, f"proxy:{proxy.name}", payload.worker_id, payload.lease_id, detail)


def _unbound(proxy: EnrolledKey, evidence: VerifiedEvidence) -> LedgerEvent:
    payload = evidence.payload
    detail: Detail = {
        "outcome": "recorded",
        "why": NOT_BOUND,
        "claimed_reason": payload.reason,
        "claimed_worker_id": payload.worker_id,
        "claimed_lease_id": payload.lease_id,
        "claimed_fence": payload.fence,
        "decision_id": payload.decision_id,
        "evidence_sha256": evidence.sha256,
        "evidence_seq": payload.seq,
    }
    return LedgerEvent(EventReason.VIOLATION_RECORDED, f"proxy:{proxy.name}", detail=detail)
