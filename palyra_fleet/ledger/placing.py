"""Placing: which of the workers that wait is offered a run. Filter, score, commit. Pure.

A worker that says in its heartbeat that it waits may be offered an approved run: the first in the
order of `facts.score` for whom `assignable` is true now. The offer keeps the run for it, and it for
the run, until `policy.offer_ms` is over; it leases nothing. The worker takes it by asking for the
lease (`leasing.grant_lease`), which decides anew; or declines, or its time passes, which counts
against it, and it waits no more until its next beat. Whatever ends the worker's or the approval's
standing ends the offer (`Draft.finish`). Nobody is queued: where no worker fits, whoever asks is
refused and asks again. Times: Unix ms. Source: specification 20, section 1.
"""

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.offers import Offer, PlacementOrder
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant
from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import WorkerRecord, assignable, failures_of, with_outcome
from palyra_fleet.ledger.guards import find_working
from palyra_fleet.ledger.lease_guards import capacity_refusal, find_grant, lease_end
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import (
    FleetReason,
    Refusal,
    lease_request_invalid,
    no_attested_worker,
)
from palyra_fleet.wire.placement_models import OfferState


def place(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    order: PlacementOrder,
    grant_id: str | None,
    offer_id: str,
    actor: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Offer the run to the best worker that waits; to the approval's worker, if it names one."""
    grant = _grant_for(state, policy, order, grant_id, now_unix_ms)
    if isinstance(grant, Refusal):
        return grant
    worker = _best(state, policy, order, grant, now_unix_ms)
    if worker is None:
        return no_attested_worker()
    end = min(
        now_unix_ms + policy.offer_ms,
        grant.expires_at_unix_ms,
        worker.proof.attested_until_unix_ms,
    )
    offer = Offer(offer_id, worker.worker_id, grant.grant_id, order, now_unix_ms, end)
    detail: Detail = {
        "offer_id": offer_id,
        "run_id": order.run_id,
        "grant_id": grant.grant_id,
        "expires_at_unix_ms": end,
        "recent_failures": failures_of(worker),
        "last_used_at_unix_ms": worker.last_used_at_unix_ms,
        "bound_at_unix_ms": worker.proof.bound_at_unix_ms,
    }
    draft = Draft(state, now_unix_ms, actor)
    draft.offer(offer, detail)
    return draft.finish()


def decline(
    state: LedgerState,
    worker_id: str,
    session_epoch: int,
    offer_id: str,
    why: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """The worker does not take what it was offered; the run is free at once."""
    worker = find_working(state, worker_id, session_epoch)
    if isinstance(worker, Refusal):
        return worker
    offer = state.placing.open_offer(offer_id)
    if offer is None or offer.worker_id != worker_id:
        return _ended(offer_id)
    draft = Draft(state, now_unix_ms, worker_id)
    draft.put_worker(with_outcome(worker, failed=True))
    draft.end_offer(offer, OfferState.DECLINED, EventReason.OFFER_DECLINED, why)
    return draft.finish()


def taking_refusal(
    state: LedgerState, worker_id: str, grant: WorkerApprovalGrant, order: LeaseOrder
) -> Refusal | None:
    """Why an offer forbids this lease: the run is kept for another worker, the offer that is to be
    taken is not open for this one, or the lease would be another than the one that was offered."""
    offer = state.placing.offer_of(order.run_id)
    if offer is None or offer.worker_id != worker_id:
        if order.offer_id is not None:
            return _ended(order.offer_id)
        if offer is None:
            return None
        text = f"run '{order.run_id}' is offered to another worker"
        return Refusal(FleetReason.RUN_OFFERED, text)
    if order.offer_id not in {None, offer.offer_id}:
        return _ended(str(order.offer_id))
    if offer.grant_id != grant.grant_id:
        return lease_request_invalid("the grant must be the offer's")
    difference = offer.order.difference(order)
    return None if difference is None else lease_request_invalid(difference)


def _ended(offer_id: str) -> Refusal:
    text = f"offer '{offer_id}' has ended, or is another worker's"
    return Refusal(FleetReason.OFFER_ENDED, text)


def _grant_for(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    order: PlacementOrder,
    grant_id: str | None,
    now_unix_ms: int,
) -> WorkerApprovalGrant | Refusal:
    problem = order.artifact_transport.problem()
    if order.ttl_ms < 1:
        problem = "ttl_ms must be at least 1"
    if problem is not None:
        return lease_request_invalid(problem)
    grant = find_grant(state, grant_id, order.run_id, order.read_only, now_unix_ms)
    if isinstance(grant, Refusal):
        return grant
    if state.placing.offer_of(order.run_id) is not None:
        return Refusal(FleetReason.RUN_OFFERED, f"run '{order.run_id}' is offered to a worker")
    return capacity_refusal(state, policy, grant, order.run_id) or grant


def _best(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    order: PlacementOrder,
    grant: WorkerApprovalGrant,
    now_unix_ms: int,
) -> WorkerRecord | None:
    """The first that may have the lease. Who waits and is not assignable is so by a policy that
    asks for more since the last start, until its next proof: there are few, and never for long."""
    required = frozenset(order.required_capabilities)
    least = BindingLevel.ENFORCED if order.read_only else policy.least_binding_level
    for worker_id in state.placing.in_order(required, least, grant.worker_id):
        worker = state.workers[worker_id]
        end = lease_end(policy, worker, order.ttl_ms, grant.expires_at_unix_ms, now_unix_ms)
        if assignable(
            worker,
            state.beats[worker_id].deadline_unix_ms,
            end,
            order.required_capabilities,
            policy.binding_max_age_ms,
            least,
            now_unix_ms,
        ):
            return worker
    return None
