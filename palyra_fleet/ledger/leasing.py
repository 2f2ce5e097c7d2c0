"""Grants and leases: who gets a run, for how long, and how it ends. Pure.

A lease needs an assignable worker whose binding to its proxy was proved just now (`binding`), a
usable grant for the run and room; it takes a new fence, and ends at the least of now + ttl, now +
policy maximum, grant and attestation (which ends with the certificate behind it). A renewal counts
from its own `now` under the same caps, so a run lasts as long as its grant and ever new evidence
carry it, and no lease runs longer than the policy's maximum on one word of the worker. Start and
renew need the current `(lease_id, fence)` before the end. Completion is also taken in the very last
millisecond (now = end), as long as the lease was not reaped: it hands nothing out. Times: Unix ms.
"""

from dataclasses import replace

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.artifacts import NOTHING_CARRIED, CarriedArtifacts, checksums
from palyra_fleet.leases.records import (
    LeaseOrder,
    LeaseStatus,
    WorkerApprovalGrant,
    WorkerLease,
)
from palyra_fleet.ledger.binding import binding_refusal
from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Eligibility, Work, WorkerRecord, assignable, with_outcome
from palyra_fleet.ledger.guards import find_working
from palyra_fleet.ledger.lease_guards import capacity_refusal, find_grant, lease_end
from palyra_fleet.ledger.placing import taking_refusal
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import (
    FleetReason,
    Refusal,
    lease_request_invalid,
    no_attested_worker,
)
from palyra_fleet.wire.placement_models import OrderKind


def grant_lease(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    worker_id: str,
    session_epoch: int,
    grant_id: str | None,
    order: LeaseOrder,
    lease_id: str,
    egress_secret_sha256: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Give the asking worker a lease of the run, spending one use of the grant."""
    worker = find_working(state, worker_id, session_epoch)
    if isinstance(worker, Refusal):
        return worker
    if worker.eligibility is not Eligibility.ELIGIBLE:
        return Refusal(FleetReason.DRAINING, f"worker '{worker_id}' takes no new leases: draining")
    if worker.demand is not None:
        text = f"worker '{worker_id}' must attest again before it takes a lease"
        return Refusal(FleetReason.REATTESTATION_DEMANDED, text)
    refusal = _order_refusal(policy, worker, order)
    if refusal is not None:
        return refusal
    read_only = order.workspace_scope.read_only
    grant = find_grant(state, grant_id, order.run_id, read_only, now_unix_ms)
    if isinstance(grant, Refusal):
        return grant
    if not grant.is_for(worker_id):
        text = f"run '{order.run_id}' is approved for another worker"
        return Refusal(FleetReason.NO_GRANT, text)
    refusal = capacity_refusal(state, policy, grant, order.run_id)
    refusal = refusal or taking_refusal(state, worker_id, grant, order)
    if refusal is not None:
        return refusal
    refusal = binding_refusal(state, policy, worker.proof, now_unix_ms)
    if refusal is not None:
        return refusal
    end = lease_end(policy, worker, order.ttl_ms, grant.expires_at_unix_ms, now_unix_ms)
    beat = state.beats.get(worker_id)
    deadline = -1 if beat is None else beat.deadline_unix_ms
    if not assignable(
        worker,
        deadline,
        end,
        order.required_capabilities,
        policy.binding_max_age_ms,
        policy.least_binding_level,
        now_unix_ms,
    ):
        return no_attested_worker()
    lease = WorkerLease(
        lease_id=lease_id,
        fence=state.highest_fence + 1,
        worker_id=worker_id,
        run_id=order.run_id,
        grant_id=grant.grant_id,
        principal=grant.principal,
        egress_profile=grant.egress_profile,
        egress_secret_sha256=egress_secret_sha256,
        required_capabilities=order.required_capabilities,
        workspace_scope=order.workspace_scope,
        granted_at_unix_ms=now_unix_ms,
        expires_at_unix_ms=end,
        grant_expires_at_unix_ms=grant.expires_at_unix_ms,
        artifact_transport=order.artifact_transport,
        rule_id=None if grant.rule is None else grant.rule.rule_id,
    )
    return _granted(Draft(state, now_unix_ms, worker_id), worker, grant, lease)


def _granted(
    draft: Draft, worker: WorkerRecord, grant: WorkerApprovalGrant, lease: WorkerLease
) -> Decision:
    draft.put(replace(grant, uses=grant.uses + 1))
    draft.put_lease(lease)
    draft.put_worker(
        replace(
            worker,
            work=Work.ASSIGNED,
            cleanup_verified=False,
            last_lease_id=lease.lease_id,
            last_fence=lease.fence,
            last_used_at_unix_ms=draft.now_unix_ms,
        )
    )
    draft.wait_no_more(worker.worker_id)
    detail: Detail = {
        "fence": lease.fence,
        "run_id": lease.run_id,
        "grant_id": lease.grant_id,
        "egress_profile": lease.egress_profile,
        "expires_at_unix_ms": lease.expires_at_unix_ms,
    }
    if lease.artifact_transport.inputs:
        detail = {**detail, "inputs_sha256sum": checksums(lease.artifact_transport.inputs)}
    offer = draft.state.placing.offer_of(lease.run_id)
    if offer is not None:
        draft.take_offer(offer, lease.lease_id)
        detail = {**detail, "offer_id": offer.offer_id}
    draft.event(EventReason.ASSIGNED, worker.worker_id, lease.lease_id, detail)
    return draft.finish()


def _order_refusal(
    policy: WorkerFleetPolicy, worker: WorkerRecord, order: LeaseOrder
) -> Refusal | None:
    if order.ttl_ms < 1:
        return lease_request_invalid("ttl_ms must be at least 1")
    problem = (
        order.workspace_scope.problem(policy.workspace_root) or order.artifact_transport.problem()
    )
    if problem is not None:
        return lease_request_invalid(problem)
    if order.workspace_scope.read_only and worker.proof.binding_level < BindingLevel.ENFORCED:
        return lease_request_invalid("only an isolated worker can hold a read-only workspace")
    return None


def _current_lease(
    state: LedgerState, worker: WorkerRecord, lease_id: str, fence: int
) -> WorkerLease | Refusal:
    lease = state.live_lease_of(worker.worker_id)
    if lease is not None and (lease.lease_id, lease.fence) == (lease_id, fence):
        return lease
    if lease is None and (lease_id, fence) == (worker.last_lease_id, worker.last_fence):
        return Refusal(FleetReason.LEASE_ENDED, f"lease '{lease_id}' has ended")
    if (lease is not None and lease.lease_id == lease_id) or fence <= worker.last_fence:
        text = f"fence {fence} of lease '{lease_id}' is stale"
        return Refusal(FleetReason.STALE_FENCE, text)
    return Refusal(FleetReason.LEASE_UNKNOWN, f"worker holds no lease '{lease_id}'")


def _held(
    state: LedgerState,
    worker_id: str,
    session_epoch: int,
    lease_id: str,
    fence: int,
    now_unix_ms: int,
) -> tuple[WorkerRecord, WorkerLease] | Refusal:
    """The worker and the lease that its run goes on with: current, and before its end."""
    worker = find_working(state, worker_id, session_epoch)
    if isinstance(worker, Refusal):
        return worker
    lease = _current_lease(state, worker, lease_id, fence)
    if isinstance(lease, Refusal):
        return lease
    if now_unix_ms >= lease.expires_at_unix_ms:
        return Refusal(FleetReason.LEASE_ENDED, f"lease '{lease_id}' has ended")
    return worker, lease


def start_lease(
    state: LedgerState,
    worker_id: str,
    session_epoch: int,
    lease_id: str,
    fence: int,
    now_unix_ms: int,
) -> Decision | Refusal:
    """The run begins. Starting twice is refused."""
    held = _held(state, worker_id, session_epoch, lease_id, fence, now_unix_ms)
    if isinstance(held, Refusal):
        return held
    worker, lease = held
    if lease.status is not LeaseStatus.ASSIGNED:
        return Refusal(FleetReason.COMMAND_INVALID, f"lease '{lease_id}' was started before")
    draft = Draft(state, now_unix_ms, worker_id)
    draft.put_lease(replace(lease, status=LeaseStatus.BUSY))
    draft.put_worker(replace(worker, work=Work.BUSY))
    draft.event(EventReason.STARTED, worker_id, lease_id, {"fence": fence})
    return draft.finish()


def renew_lease(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    worker_id: str,
    session_epoch: int,
    lease_id: str,
    fence: int,
    ttl_ms: int | None,
    now_unix_ms: int,
) -> Decision | Refusal:
    """A later end under the same caps, counted from now; never an earlier one."""
    held = _held(state, worker_id, session_epoch, lease_id, fence, now_unix_ms)
    if isinstance(held, Refusal):
        return held
    worker, lease = held
    wanted_ms = policy.lease_max_ms if ttl_ms is None else ttl_ms
    end = lease_end(policy, worker, wanted_ms, lease.grant_expires_at_unix_ms, now_unix_ms)
    draft = Draft(state, now_unix_ms, worker_id)
    if end > lease.expires_at_unix_ms:
        draft.put_lease(replace(lease, expires_at_unix_ms=end))
        detail: Detail = {"fence": fence, "expires_at_unix_ms": end}
        draft.event(EventReason.RENEWED, worker_id, lease_id, detail)
    return draft.finish()


def complete_lease(
    state: LedgerState,
    worker_id: str,
    session_epoch: int,
    lease_id: str,
    fence: int,
    cleanup_verified: bool,
    now_unix_ms: int,
    carried: CarriedArtifacts = NOTHING_CARRIED,
) -> Decision | Refusal:
    """The run is over. A bad cleanup report fails the work and quarantines the worker; so does one
    that names other artifacts than the lease allows."""
    worker = find_working(state, worker_id, session_epoch)
    if isinstance(worker, Refusal):
        return worker
    lease = _current_lease(state, worker, lease_id, fence)
    if isinstance(lease, Refusal):
        orphaned = lease.reason is FleetReason.LEASE_ENDED and worker.work is Work.ORPHANED
        if orphaned and cleanup_verified:
            text = f"worker '{worker_id}' cleaned up after its lease ended; it must attest again"
            return Refusal(FleetReason.REATTEST_FIRST, text)
        return lease
    if now_unix_ms > lease.expires_at_unix_ms:
        return Refusal(FleetReason.LEASE_ENDED, f"lease '{lease_id}' has ended")
    draft = Draft(state, now_unix_ms, worker_id)
    detail: Detail = {"fence": fence, "run_id": lease.run_id}
    if carried.outputs:
        detail = {**detail, "outputs_sha256sum": checksums(carried.outputs)}
    difference = lease.artifact_transport.difference(carried)
    if cleanup_verified and difference is None:
        draft.put_lease(replace(lease, status=LeaseStatus.COMPLETED, ended_at_unix_ms=now_unix_ms))
        worker = with_outcome(worker, failed=False)
        draft.put_worker(replace(worker, work=Work.IDLE, cleanup_verified=True))
        draft.event(EventReason.COMPLETED, worker_id, lease_id, detail)
        return draft.finish()
    draft.put_lease(replace(lease, status=LeaseStatus.CLEANUP_FAILED, ended_at_unix_ms=now_unix_ms))
    draft.put_worker(
        replace(
            with_outcome(worker, failed=True),
            work=Work.FAILED,
            cleanup_verified=False,
            failed_at_attestation_epoch=worker.attestation_epoch,
        )
    )
    draft.mark_quarantined(worker_id, EventReason.CLEANUP_FAILED.value, None)
    why = "not all of the run is gone" if difference is None else difference
    draft.event(EventReason.CLEANUP_FAILED, worker_id, lease_id, {**detail, "why": why})
    draft.notice(worker_id, OrderKind.QUARANTINED, lease_id, EventReason.CLEANUP_FAILED.value)
    return draft.finish()


def revoke_lease(
    state: LedgerState, lease_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """An operator ends a live lease."""
    lease = state.leases.get(lease_id)
    if lease is None:
        return Refusal(FleetReason.LEASE_UNKNOWN, f"there is no live lease '{lease_id}'")
    draft = Draft(state, now_unix_ms, actor)
    draft.end_lease(lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, why)
    return draft.finish()
