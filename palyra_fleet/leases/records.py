"""Grants and leases as the ledger keeps them.

A `WorkerApprovalGrant` is an approval for one run, made by an operator or by a named rule and kept
by the fleet. A
`WorkerLease` is the right of one worker to do that run until `expires_at_unix_ms` (exclusive). The
fence orders leases for ever. The egress secret is known by its SHA-256 only. Times: Unix ms.
"""

from dataclasses import dataclass
from enum import StrEnum

from palyra_fleet.leases.approval_rules import RuleMark
from palyra_fleet.leases.artifacts import NOTHING_TO_CARRY, ArtifactTransport
from palyra_fleet.leases.workspace import WorkerWorkspaceScope


class LeaseStatus(StrEnum):
    """Live while assigned or busy; every other status is an end and never changes again."""

    ASSIGNED = "assigned"
    BUSY = "busy"
    COMPLETED = "completed"
    CLEANUP_FAILED = "cleanup_failed"
    EXPIRED = "expired"
    REVOKED = "revoked"
    ORPHANED = "orphaned"

    @property
    def live(self) -> bool:
        return self in {LeaseStatus.ASSIGNED, LeaseStatus.BUSY}


@dataclass(frozen=True, slots=True)
class WorkerApprovalGrant:
    """Someone approved that a worker does this run with this egress profile. With `worker_id` only
    that worker may, with `read_only` only in a workspace that it cannot write to. `rule` says which
    approval rule did, if no person."""

    grant_id: str
    run_id: str
    tool_name: str
    principal: str
    egress_profile: str
    expires_at_unix_ms: int
    approved_by: str
    max_uses: int = 1
    uses: int = 0
    withdrawn: bool = False
    worker_id: str | None = None
    rule: RuleMark | None = None
    read_only: bool = False

    def is_for(self, worker_id: str) -> bool:
        """Whether this worker may spend it."""
        return self.worker_id in {None, worker_id}

    def usable(self, now_unix_ms: int) -> bool:
        """Unexpired, unspent and not withdrawn."""
        unspent = self.uses < self.max_uses
        return unspent and not self.withdrawn and now_unix_ms < self.expires_at_unix_ms


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """One worker's lease of one run."""

    lease_id: str
    fence: int
    worker_id: str
    run_id: str
    grant_id: str
    principal: str
    egress_profile: str
    egress_secret_sha256: str
    required_capabilities: tuple[str, ...]
    workspace_scope: WorkerWorkspaceScope
    granted_at_unix_ms: int
    expires_at_unix_ms: int
    grant_expires_at_unix_ms: int
    status: LeaseStatus = LeaseStatus.ASSIGNED
    ended_at_unix_ms: int | None = None
    artifact_transport: ArtifactTransport = NOTHING_TO_CARRY
    rule_id: str | None = None


@dataclass(frozen=True, slots=True)
class LeaseOrder:
    """What a worker asks for; every field is its own word and is checked."""

    run_id: str
    ttl_ms: int
    required_capabilities: tuple[str, ...]
    workspace_scope: WorkerWorkspaceScope
    artifact_transport: ArtifactTransport = NOTHING_TO_CARRY
    offer_id: str | None = None
