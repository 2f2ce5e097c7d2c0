"""An operator demands newer evidence of a worker, or that and a new key; what meets it. Pure.

The demand shortens what the worker stands on: it is attested until the demand's deadline at the
latest, which every lease, renewal and offer is held to anyway, so no other fact is touched. Until
it is met the worker keeps the lease it has and gets no new one (`facts.idle`); what is left at the
deadline ends (`liveness.reap`). Evidence meets it that was made after it: its nonce was given out
no earlier, by the fleet's clock. Where a new key is demanded, the old one proves nothing more, and
is retired for ever once the new one is there. Asked again, a demand only becomes stricter; what
changes nothing is no change. Times: Unix ms. Source: specification 20, sections 1 and 2.
"""

from dataclasses import replace

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import EvidenceDemand, WorkerRecord
from palyra_fleet.ledger.guards import find_worker
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.placement_models import OrderKind


def reattest(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    worker_id: str,
    new_key: bool,
    within_ms: int | None,
    actor: str,
    why: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Demand it, within the policy's time unless another is said."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    if worker.confined:
        text = f"worker '{worker_id}' is quarantined: its release takes all of that anyway"
        return Refusal(FleetReason.WORKER_QUARANTINED, text)
    within_ms = policy.reattest_within_ms if within_ms is None else within_ms
    asked = EvidenceDemand(actor, why, new_key, now_unix_ms, now_unix_ms + within_ms)
    demand = stricter_of(worker.demand, asked)
    if demand is None or demand == worker.demand:
        return Decision(now_unix_ms)
    draft = Draft(state, now_unix_ms, actor)
    put_demand(draft, worker, demand)
    log_demand(draft, worker, demand)
    draft.shorten_lease_of(worker_id, demand.due_at_unix_ms)
    reason = EventReason.REATTESTATION_DEMANDED.value
    draft.notice(worker_id, OrderKind.REATTEST, None, reason)
    return draft.finish()


def stricter_of(one: EvidenceDemand | None, other: EvidenceDemand | None) -> EvidenceDemand | None:
    """The first, unless the second makes it stricter: then the second, no weaker than the first."""
    if one is None or other is None:
        return one or other
    sooner = other.due_at_unix_ms < one.due_at_unix_ms
    if not sooner and (one.new_key or not other.new_key):
        return one
    due = min(one.due_at_unix_ms, other.due_at_unix_ms)
    return replace(other, new_key=one.new_key or other.new_key, due_at_unix_ms=due)


def put_demand(draft: Draft, worker: WorkerRecord, demand: EvidenceDemand) -> None:
    """The worker's evidence holds no longer than the demand lets it."""
    until = min(worker.proof.attested_until_unix_ms, demand.due_at_unix_ms)
    proof = replace(worker.proof, attested_until_unix_ms=until)
    draft.put_worker(replace(worker, proof=proof, demand=demand))


def log_demand(draft: Draft, worker: WorkerRecord, demand: EvidenceDemand) -> None:
    detail: Detail = {
        "why": demand.why,
        "new_key": demand.new_key,
        "due_at_unix_ms": demand.due_at_unix_ms,
        "attestation_epoch": worker.attestation_epoch,
        "key_sha256": worker.proof.key_sha256,
    }
    draft.event(EventReason.REATTESTATION_DEMANDED, worker.worker_id, None, detail)


def unmet(worker: WorkerRecord, result: AttestationResult) -> Refusal | None:
    """Why this evidence is not what was demanded of the worker, if something was."""
    demand = worker.demand
    if demand is None:
        return None
    if demand.new_key and result.key_sha256 == worker.proof.key_sha256:
        text = f"worker '{worker.worker_id}' must attest with a new key: an operator demands it"
        return Refusal(FleetReason.NEW_KEY_DEMANDED, text)
    asked = result.nonce_issued_at_unix_ms
    if asked is None or asked < demand.asked_at_unix_ms:
        text = "this evidence was begun before an operator demanded new evidence; begin anew"
        return Refusal(FleetReason.EVIDENCE_BEFORE_DEMAND, text)
    return None


def met(worker: WorkerRecord | None) -> Detail:
    """What the event of new evidence says of the demand that it meets."""
    if worker is None or worker.demand is None:
        return {}
    detail: Detail = {
        "demanded_by": worker.demand.asked_by,
        "demanded_at_unix_ms": worker.demand.asked_at_unix_ms,
    }
    if worker.demand.new_key:
        detail = {**detail, "retired_key_sha256": worker.proof.key_sha256}
    return detail
