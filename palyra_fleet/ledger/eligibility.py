"""Cordon, uncordon, drain: eligibility changes on request only, and nothing else with it.

Input is an operator's command, output a decision or a refusal. A drain carries a deadline (Unix ms)
at which a lease that is still held ends; see `liveness.reap`. Pure.
"""

from dataclasses import replace

from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Eligibility
from palyra_fleet.ledger.guards import find_worker
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import Refusal

_REASONS = {
    Eligibility.ELIGIBLE: EventReason.UNCORDONED,
    Eligibility.CORDONED: EventReason.CORDONED,
    Eligibility.DRAINING: EventReason.DRAINED,
}


def set_eligibility(
    state: LedgerState,
    worker_id: str,
    eligibility: Eligibility,
    drain_deadline_unix_ms: int | None,
    actor: str,
    why: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """As asked. At its drain deadline a worker loses the lease it still holds."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    draft = Draft(state, now_unix_ms, actor)
    draft.put_worker(
        replace(worker, eligibility=eligibility, drain_deadline_unix_ms=drain_deadline_unix_ms)
    )
    detail: Detail = {"why": why, "drain_deadline_unix_ms": drain_deadline_unix_ms}
    draft.event(_REASONS[eligibility], worker_id, None, detail)
    return draft.finish()
