"""What an approval and the room for leases say, of a lease that is asked for and of an offer.

A grant must be there, usable and for the run, and one that lets a run only read asks for a lease
that says so; the run must be free, new leases not frozen, and room
left in all and for the principal. `lease_end` is the only place that says how long a lease may be.
Pure. Times: Unix ms.
"""

from palyra_fleet.leases.records import WorkerApprovalGrant
from palyra_fleet.ledger import storm
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal, lease_request_invalid


def find_grant(
    state: LedgerState, grant_id: str | None, run_id: str, read_only: bool, now_unix_ms: int
) -> WorkerApprovalGrant | Refusal:
    """The approval of this run, if it can be used."""
    if grant_id is None:
        return Refusal(FleetReason.NO_GRANT, f"no usable grant approves run '{run_id}'")
    grant = state.grants.get(grant_id)
    if grant is None or not grant.usable(now_unix_ms):
        return Refusal(FleetReason.GRANT_SPENT, "the grant is spent, withdrawn or expired")
    if grant.run_id != run_id:
        return lease_request_invalid("grant run_id must match lease run_id")
    if grant.read_only and not read_only:
        text = f"run '{run_id}' is approved to read only; ask for a read-only workspace"
        return lease_request_invalid(text)
    return grant


def capacity_refusal(
    state: LedgerState, policy: WorkerFleetPolicy, grant: WorkerApprovalGrant, run_id: str
) -> Refusal | None:
    """Why there is no room for a lease of this run."""
    if run_id in state.lease_by_run:
        return Refusal(FleetReason.RUN_LEASED, f"run '{run_id}' has a live lease")
    if (frozen := storm.refusal(state, policy)) is not None:
        return frozen
    if len(state.leases) >= policy.max_leases:
        return Refusal(FleetReason.LEASES_FULL, f"{policy.max_leases} leases are live")
    if state.leases_per_principal[grant.principal] >= policy.leases_per_principal:
        text = f"principal '{grant.principal}' has {policy.leases_per_principal} live leases"
        return Refusal(FleetReason.LEASES_FULL, text)
    return None


def lease_end(
    policy: WorkerFleetPolicy,
    worker: WorkerRecord,
    ttl_ms: int,
    grant_expires_at_unix_ms: int,
    now_unix_ms: int,
) -> int:
    """When a lease that is given or renewed now ends."""
    return min(
        now_unix_ms + min(ttl_ms, policy.lease_max_ms),
        grant_expires_at_unix_ms,
        worker.proof.attested_until_unix_ms,
    )
