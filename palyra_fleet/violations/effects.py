"""What accepted evidence does to the fleet, as one decision. Pure.

Evidence, the proxy's place in its chain, the quarantine with its lease revocation, and the events
are one decision and so one transaction: an acknowledged quarantine is durable with its reason.
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
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.refusals import Refusal
from palyra_fleet.violations.intake import EvidenceOutcome, VerifiedEvidence


def violation_decision(
    manager: WorkerFleetManager,
    proxy: EnrolledKey,
    evidence: VerifiedEvidence,
    outcome: EvidenceOutcome,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Record the evidence and do what `outcome` says."""
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
        )
    else:
        struck = outcome == "struck"
        reason = EventReason.VIOLATION_STRUCK if struck else EventReason.VIOLATION_RECORDED
        decision = Decision(now, events=(_event(reason, proxy, evidence, outcome),))
    if isinstance(decision, Refusal):
        return decision
    return replace(decision, records=(*decision.records, record, moved))


def _event(
    reason: EventReason, proxy: EnrolledKey, evidence: VerifiedEvidence, outcome: str
) -> LedgerEvent:
    payload = evidence.payload
    detail: Detail = {
        "outcome": outcome,
        "why": payload.reason,
        "rule_id": payload.rule_id,
        "evidence_sha256": evidence.sha256,
        "evidence_seq": payload.seq,
    }
    return LedgerEvent(reason, f"proxy:{proxy.name}", payload.worker_id, payload.lease_id, detail)
