"""Guards that many commands share: each answers the worker, or the refusal that stops the command.

Unknown and banned workers get nothing; the quarantined may beat and attest, which is why working
commands use `find_working` and the others `find_worker`. Pure.
"""

from palyra_fleet.ledger.facts import Admission, WorkerRecord
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal, worker_unknown


def find_worker(state: LedgerState, worker_id: str) -> WorkerRecord | Refusal:
    """The worker, unless it is unknown or banned."""
    worker = state.workers.get(worker_id)
    if worker is None:
        return worker_unknown(worker_id)
    if worker.admission is Admission.BANNED:
        return Refusal(FleetReason.WORKER_BANNED, f"worker '{worker_id}' is banned")
    return worker


def session_refusal(worker: WorkerRecord, session_epoch: int) -> Refusal | None:
    if session_epoch == worker.session_epoch:
        return None
    text = f"session {session_epoch} of worker '{worker.worker_id}' is not the current one"
    return Refusal(FleetReason.SESSION_STALE, text)


def find_working(state: LedgerState, worker_id: str, session_epoch: int) -> WorkerRecord | Refusal:
    """The worker, if it may work: known, neither banned nor quarantined, session current."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    if worker.confined:
        return Refusal(FleetReason.WORKER_QUARANTINED, f"worker '{worker_id}' is quarantined")
    return session_refusal(worker, session_epoch) or worker
