"""What a command decides: records to write, events to log, orders to give. Nothing is done yet.

A `Decision` is written by the store in one transaction and only then applied to the in-memory
ledger and told to anyone. `beats`, `words` and `offers` live in memory only. Every decision that
writes a record carries at least one event. Times: Unix ms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from palyra_fleet.leases.offers import Offer
from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.wire.placement_models import OrderKind


class EventReason(StrEnum):
    """Reasons in the event log. A released spelling never changes."""

    REGISTERED = "worker.registered"
    REATTESTED = "worker.reattested"
    REATTESTATION_DEMANDED = "worker.reattestation_demanded"
    CANDIDATE_ATTESTED = "worker.candidate_attested"
    ASSIGNED = "worker.assigned"
    STARTED = "worker.started"
    RENEWED = "worker.lease_renewed"
    LEASE_SHORTENED = "worker.lease_shortened"
    COMPLETED = "worker.completed"
    CLEANUP_FAILED = "worker.cleanup_failed"
    TTL_EXPIRED = "worker.ttl_expired"
    LEASE_REVOKED = "worker.lease_revoked"
    EGRESS_SUSPENDED = "worker.egress_suspended"
    EGRESS_RESUMED = "worker.egress_resumed"
    ATTESTATION_ENDED = "worker.attestation_ended"
    HEARTBEAT = "worker.heartbeat"
    HEARTBEAT_STALE = "worker.heartbeat_stale"
    QUARANTINED_BY_OPERATOR = "worker.quarantined_by_operator"
    QUARANTINED_BY_EGRESS = "worker.quarantined_by_egress"
    QUARANTINED_BY_RESTORE = "worker.quarantined_by_restore"
    RELEASED = "worker.released_by_operator"
    RELEASE_REQUESTED = "worker.release_requested"
    RELEASE_APPROVED = "worker.release_approved"
    RELEASE_WITHDRAWN = "worker.release_withdrawn"
    RELEASE_EXPIRED = "worker.release_request_expired"
    RELEASE_VOIDED = "worker.release_request_voided"
    REVERIFIED = "worker.reverified_by_operator"
    CORDONED = "worker.cordoned_by_operator"
    UNCORDONED = "worker.uncordoned_by_operator"
    DRAINED = "worker.drained_by_operator"
    LABELLED = "worker.labelled_by_operator"
    BANNED = "worker.banned_by_operator"
    EVICTED = "worker.evicted_by_operator"
    OFFERED = "worker.offered"
    OFFER_DECLINED = "worker.offer_declined"
    OFFER_LAPSED = "worker.offer_lapsed"
    OFFER_ENDED = "worker.offer_ended"
    VIOLATION_STRUCK = "worker.struck_by_egress"
    VIOLATION_RECORDED = "worker.violation_recorded"
    GRANT_CREATED = "grant.created"
    GRANT_WITHDRAWN = "grant.withdrawn"
    LAUNCHER_ENROLLED = "fleet.launcher_enrolled"
    PROXY_ENROLLED = "fleet.proxy_enrolled"
    LAUNCHER_REVOKED = "fleet.launcher_revoked"
    PROXY_REVOKED = "fleet.proxy_revoked"
    JOIN_MINTED = "fleet.join_token_minted"
    JOIN_REVOKED = "fleet.join_token_revoked"
    REFERENCES_ADDED = "fleet.reference_values_added"
    REFERENCES_WITHDRAWN = "fleet.reference_values_withdrawn"
    PRINCIPAL_CREATED = "fleet.principal_created"
    PRINCIPAL_REVOKED = "fleet.principal_revoked"
    PRINCIPAL_ROTATED = "fleet.principal_token_replaced"
    RULES_IN_FORCE = "fleet.approval_rules_in_force"
    LEASES_FROZEN = "fleet.leases_frozen"
    LEASES_UNFROZEN = "fleet.leases_unfrozen"
    EGRESS_FROZEN = "fleet.egress_frozen"
    EGRESS_UNFROZEN = "fleet.egress_unfrozen"
    PAIRING_CODE_MINTED = "node.pairing_code_minted"
    PAIRING_APPROVED = "node.pairing_approved"
    PAIRING_REJECTED = "node.pairing_rejected"
    DEVICE_ROTATION_DEMANDED = "node.device_rotation_demanded"
    DEVICE_REVOKED = "node.device_revoked"
    DEVICE_REMOVED = "node.device_removed"
    AUTHORITY_ROTATED = "node.authority_rotated"
    NODE_INVOKED = "node.invoked"
    CAPABILITY_APPROVED = "node.capability_approved"
    CAPABILITY_REJECTED = "node.capability_rejected"
    STARTED_FLEET = "fleet.started"
    SNAPSHOT_SAVED = "fleet.snapshot_saved"
    CLOCK_SET_BACK = "fleet.clock_set_back"
    RESTORED = "fleet.restored"


type Detail = Mapping[str, str | int | bool | None]


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One state change, for the hash-chained log. Carries no secret and no digest of one."""

    reason: EventReason
    actor: str
    worker_id: str | None = None
    lease_id: str | None = None
    detail: Detail = field(default_factory=dict)


class TombstoneKind(StrEnum):
    """What is remembered for ever about the banned, and about keys that were retired: by a release,
    or since a new one was demanded."""

    WORKER = "worker"
    KEY = "key"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Tombstone:
    kind: TombstoneKind
    value: str


@dataclass(frozen=True, slots=True)
class EvictedWorker:
    """The worker's record is to be forgotten."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class EnrolledKey:
    """A launcher or proxy operators trust. `seq` and `last_sha256` end a proxy's evidence chain.
    The key is good only on connections of `device_id` (None: of this machine); one that was taken
    back is kept, and trusted no more."""

    kind: Literal["launcher", "proxy"]
    name: str
    public_key: bytes
    seq: int = 0
    last_sha256: str = "0" * 64
    device_id: str | None = None
    revoked_at_unix_ms: int | None = None

    @property
    def revoked(self) -> bool:
        return self.revoked_at_unix_ms is not None


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """One digest that evidence may carry in one field."""

    digest_field: Literal["image", "build", "artifact"]
    digest_sha256: str


@dataclass(frozen=True, slots=True)
class WithdrawnReference:
    """This digest is accepted no more."""

    digest_field: Literal["image", "build", "artifact"]
    digest_sha256: str


@dataclass(frozen=True, slots=True)
class FleetFreeze:
    """Whether new leases are frozen, when that was decided, and whether all egress is as well,
    which it never is alone. `by` is the principal who froze; None is a storm. There is one."""

    frozen: bool
    at_unix_ms: int
    egress: bool = False
    by: str | None = None


@dataclass(frozen=True, slots=True)
class EvidenceRecord:
    """A violation as received: the verified payload, its digest and what was done about it."""

    evidence_sha256: str
    proxy_id: str
    seq: int
    worker_id: str
    received_at_unix_ms: int
    at_unix_ms: int
    outcome: Literal["quarantined", "already_quarantined", "struck", "recorded"]
    payload: bytes


type Record = (
    WorkerRecord
    | EvictedWorker
    | WorkerLease
    | WorkerApprovalGrant
    | Tombstone
    | EnrolledKey
    | ReferenceValue
    | WithdrawnReference
    | FleetFreeze
    | EvidenceRecord
)


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker's last heartbeat number, when it is missed, and whether the worker waits to be
    offered a run. Memory only."""

    worker_id: str
    seq: int
    deadline_unix_ms: int
    waits: bool = False


@dataclass(frozen=True, slots=True)
class PolicyWord:
    """Which egress policy a proxy says it has in force, and when it said so. Memory only."""

    proxy_id: str
    policy_digest: str
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the worker's order stream must say."""

    worker_id: str
    kind: OrderKind
    lease_id: str | None
    reason: str
    offer: Offer | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole effect of one command."""

    at_unix_ms: int
    records: tuple[Record, ...] = ()
    events: tuple[LedgerEvent, ...] = ()
    beats: tuple[Beat, ...] = ()
    words: tuple[PolicyWord, ...] = ()
    offers: tuple[Offer, ...] = ()
    notices: tuple[Notice, ...] = ()
    highest_fence: int = 0
    quarantines: int = 0
    reaped: bool = False
    """Every deadline up to `at_unix_ms` was dealt with."""
    grants_ran_out: bool = False
    """A grant was forgotten because of the time alone: that time must outlast a restart, or a clock
    that was set back meanwhile would give the grant again."""

    @property
    def durable(self) -> bool:
        """Does it have to be written before anyone is told?"""
        return bool(self.records or self.events or self.grants_ran_out)
