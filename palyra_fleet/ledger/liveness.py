"""Heartbeats and everything that happens by a deadline. Pure.

No client timestamp takes part: a heartbeat counts at the fleet's `now`. One that comes after its
deadline first makes the worker stale (its lease is orphaned), then live again; it revives no lease.
`reap` deals with every deadline up to `now` in one decision. The more workers there are, the less
often each beats and the later it is missed (`WorkerFleetPolicy.heartbeat_timeout_of`), both by the
size of the fleet at the same beat: what a worker was told and when it is missed always agree.
Times: Unix ms.
"""

import zlib
from dataclasses import replace

from palyra_fleet.leases.records import LeaseStatus, WorkerLease
from palyra_fleet.ledger.deadlines import DeadlineKind
from palyra_fleet.ledger.decision import Beat, Decision, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Eligibility, Liveness, with_outcome
from palyra_fleet.ledger.guards import find_worker, session_refusal
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.placement_models import OfferState


def heartbeat(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    worker_id: str,
    session_epoch: int,
    seq: int,
    now_unix_ms: int,
    waits: bool = False,
) -> Decision | Refusal:
    """A new deadline, and whether the worker waits for a run. Accepted from a quarantined worker
    too; of what is durable it changes liveness only."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    refusal = session_refusal(worker, session_epoch)
    if refusal is not None:
        return refusal
    last = state.beats.get(worker_id)
    if last is not None and seq <= last.seq:
        text = f"heartbeat {seq} of worker '{worker_id}' is not newer than {last.seq}"
        return Refusal(FleetReason.HEARTBEAT_OLD, text)
    draft = Draft(state, now_unix_ms)
    overdue = last is None or now_unix_ms > last.deadline_unix_ms
    if worker.liveness is Liveness.LIVE and overdue:
        draft.go_stale(worker_id)
    worker = draft.worker(worker_id)
    if worker.liveness is not Liveness.LIVE:
        draft.put_worker(replace(worker, liveness=Liveness.LIVE))
        draft.event(EventReason.HEARTBEAT, worker_id)
    timeout_ms = policy.heartbeat_timeout_of(len(state.workers))
    draft.beat(Beat(worker_id, seq, now_unix_ms + timeout_ms, waits))
    return draft.finish()


def heartbeat_within_ms(
    state: LedgerState, policy: WorkerFleetPolicy, worker_id: str, seq: int
) -> int:
    """When to beat next: a third of the timeout of a fleet of this size, spread over 20 % by worker
    and number."""
    third = policy.heartbeat_timeout_of(len(state.workers)) / 3
    spread = zlib.crc32(f"{worker_id}/{seq}".encode()) % 1000 / 1000
    return max(1, int(third * (1 - 0.2 * spread)))


def leases_to_stop(
    state: LedgerState, worker_id: str, held: tuple[tuple[str, int], ...]
) -> tuple[str, ...]:
    """Of the `(lease_id, fence)` a worker reports, the ones the fleet does not hold for it."""
    lease = state.live_lease_of(worker_id)
    current = None if lease is None else (lease.lease_id, lease.fence)
    return tuple(lease_id for lease_id, fence in held if (lease_id, fence) != current)


def reap(state: LedgerState, now_unix_ms: int) -> Decision:
    """Every expiry, missed heartbeat, drain deadline and unanswered request up to `now`."""
    draft = Draft(state, now_unix_ms)
    grants_ran_out = False
    for kind, subject_id in state.deadlines.due(now_unix_ms):
        match kind:
            case DeadlineKind.LEASE:
                _expire(draft, subject_id)
            case DeadlineKind.HEARTBEAT:
                if draft.worker(subject_id).liveness is Liveness.LIVE:
                    draft.go_stale(subject_id)
            case DeadlineKind.DRAIN:
                _end_drain(draft, subject_id)
            case DeadlineKind.RELEASE:
                _end_request(draft, subject_id)
            case DeadlineKind.OFFER:
                _lapse(draft, subject_id)
            case DeadlineKind.WAITING:
                pass  # its evidence is over: it leaves the index when the decision is applied
            case DeadlineKind.GRANT:
                grants_ran_out = True  # it is only forgotten, when the decision is applied
    return replace(draft.finish(), reaped=True, grants_ran_out=grants_ran_out)


def _expire(draft: Draft, lease_id: str) -> None:
    lease = draft.live_lease_of(draft.state.leases[lease_id].worker_id)
    if lease is not None and lease.lease_id == lease_id:
        _end_in_time(draft, lease)


def _end_in_time(draft: Draft, lease: WorkerLease) -> None:
    demand = draft.worker(lease.worker_id).demand
    if demand is not None and lease.expires_at_unix_ms >= demand.due_at_unix_ms:
        why = "the evidence that was demanded was not shown in time"
        draft.end_lease(lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, why)
    else:
        draft.end_lease(lease, LeaseStatus.EXPIRED, EventReason.TTL_EXPIRED, "its time is over")


def _lapse(draft: Draft, offer_id: str) -> None:
    worker_id = draft.state.placing.offers[offer_id].worker_id
    offer = draft.open_offer_to(worker_id)
    if offer is not None:
        draft.put_worker(with_outcome(draft.worker(worker_id), failed=True))
        draft.end_offer(
            offer, OfferState.LAPSED, EventReason.OFFER_LAPSED, "it was not taken in time"
        )


def _end_request(draft: Draft, worker_id: str) -> None:
    why = "nobody approved it in time"
    draft.end_release_request(draft.worker(worker_id), EventReason.RELEASE_EXPIRED, why)


def _end_drain(draft: Draft, worker_id: str) -> None:
    lease = draft.live_lease_of(worker_id)
    if lease is not None and draft.worker(worker_id).eligibility is Eligibility.DRAINING:
        draft.end_lease(
            lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, "the drain deadline passed"
        )
