"""What happens when nobody can tell how much time has passed.

The clock is behind what the fleet saw before, and the machine was started anew in between: every
end (of a lease, an approval, an attestation) might already have come. All of them come now. Leases
are revoked and their workers orphaned, evidence is over and has to be shown again, approvals have
to be given again; quarantines, bans and enrolments have no end and stay. Pure. Times: Unix ms.
"""

from dataclasses import replace

from palyra_fleet.leases.records import LeaseStatus
from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Proof, WorkerRecord
from palyra_fleet.ledger.state import LedgerState

WHY = "the clock was set back while the fleet was away"


def end_what_time_bounds(state: LedgerState, behind_ms: int, now_unix_ms: int) -> Decision:
    """Every end comes now. `behind_ms` is for the log."""
    draft = Draft(state, now_unix_ms)
    end_all(draft, WHY)
    detail: Detail = {
        "behind_ms": behind_ms,
        "leases": len(state.leases),
        "grants": len(state.grants),
    }
    draft.event(EventReason.CLOCK_SET_BACK, None, None, detail)
    return draft.finish()


def end_all(draft: Draft, why: str) -> None:
    """Leases, approvals and evidence are over."""
    state = draft.state
    for lease in tuple(state.leases.values()):
        draft.end_lease(lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, why)
    for grant in state.grants.values():
        draft.put(replace(grant, withdrawn=True))
    for worker_id in state.workers:
        worker = draft.worker(worker_id)
        over = with_evidence_over(worker, draft.now_unix_ms)
        if over != worker:
            draft.put_worker(over)


def with_evidence_over(worker: WorkerRecord, now_unix_ms: int) -> WorkerRecord:
    """The worker as it is when all that it showed has ended."""
    candidate = None if worker.candidate is None else _over(worker.candidate, now_unix_ms)
    return replace(worker, proof=_over(worker.proof, now_unix_ms), candidate=candidate)


def _over(proof: Proof, now_unix_ms: int) -> Proof:
    return replace(proof, attested_until_unix_ms=min(proof.attested_until_unix_ms, now_unix_ms))
