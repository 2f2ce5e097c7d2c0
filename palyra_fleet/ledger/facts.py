"""The facts the ledger keeps per worker, and the public state derived from them.

Four facts are independent: admission, eligibility, liveness, work. A command changes the facts it
is about and no others, so a drain cannot lift a quarantine nor a heartbeat undo a drain. The public
`WorkerLifecycleState` is computed, first match wins, and never stored. Times: Unix ms.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.wire.labels import Labels


class Admission(StrEnum):
    """Automatic code only ever moves a worker further down this list."""

    PENDING = "pending"
    ACTIVE = "active"
    QUARANTINED = "quarantined"
    BANNED = "banned"


class Eligibility(StrEnum):
    """Changed on request only."""

    ELIGIBLE = "eligible"
    CORDONED = "cordoned"
    DRAINING = "draining"


class Liveness(StrEnum):
    """From the heartbeat deadline and the fleet's clock."""

    NEVER = "never"
    LIVE = "live"
    STALE = "stale"


class Work(StrEnum):
    """What the worker does for us. Assigned and busy exactly while it holds a live lease.

    `cleanup` keeps its published spelling; the report comes with `complete`, so nothing rests here.
    """

    IDLE = "idle"
    ASSIGNED = "assigned"
    BUSY = "busy"
    CLEANUP = "cleanup"
    ORPHANED = "orphaned"
    FAILED = "failed"


class WorkerLifecycleState(StrEnum):
    """The one word operators see."""

    QUARANTINED = "quarantined"
    FAILED = "failed"
    ORPHANED = "orphaned"
    OFFLINE = "offline"
    DRAINING = "draining"
    BUSY = "busy"
    ASSIGNED = "assigned"
    AVAILABLE = "available"
    REGISTERED = "registered"


@dataclass(frozen=True, slots=True)
class Proof:
    """The evidence a worker stands on: key, digests, capabilities, proxy binding and its end; the
    key of the launcher that vouched; the paired device it came from (None: this machine), on whose
    connections alone the worker's key is good.

    What a stored record does not hold, because an older release wrote it, is not known: it
    satisfies nothing until the worker proves itself again.
    """

    public_key: bytes
    key_sha256: str
    artifact_digest_sha256: str
    capabilities: frozenset[str]
    attested_until_unix_ms: int
    binding_proxy_id: str
    bound_at_unix_ms: int
    attestation_epoch: int
    image_digest_sha256: str | None = None
    build_digest_sha256: str | None = None
    binding_level: BindingLevel = BindingLevel.NONE
    launcher_sha256: str | None = None
    device_id: str | None = None
    binding_policy_digest: str | None = None
    evidence_kind: str = "launcher"
    measured: bool = True
    """Somebody other than the worker vouches for its digests: only then are they told as facts."""
    credential_issued_at_unix_ms: int | None = None
    """When the bearer credential was made that this key was admitted with, if it was one."""
    known_until_unix_ms: int | None = None
    """When the certificate or token ends that the worker, the machine it runs on or the machine of
    its proxy is known by: the attestation, and so every lease, ends then at the latest."""


def ends_of(*ends: int | None) -> tuple[int, ...]:
    """Those that there are."""
    return tuple(end for end in ends if end is not None)


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why and since when, and the key and evidence number that were current then. `decision_id` is
    the proxy's verdict behind it, None where there is none."""

    reason: str
    at_unix_ms: int
    evidence_sha256: str | None
    attestation_epoch: int
    key_sha256: str
    decision_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """Somebody asks for a quarantined worker's release, and somebody else is to approve it.

    It speaks of one quarantine and of one piece of candidate evidence, by number and key; whatever
    takes their place voids it. It ends no later than that evidence.
    """

    release_id: str
    asked_by: str
    why: str
    asked_at_unix_ms: int
    expires_at_unix_ms: int
    quarantine: Quarantine
    attestation_epoch: int
    key_sha256: str


@dataclass(frozen=True, slots=True)
class EvidenceDemand:
    """An operator wants newer evidence of a worker, with `new_key` under another key as well.

    What it forbids is said by what is there anyway: the worker is attested until
    `due_at_unix_ms` at the latest, and so is every lease. It is met by evidence over a nonce that
    was given out no earlier than it was asked, and is open until then.
    """

    asked_by: str
    why: str
    new_key: bool
    asked_at_unix_ms: int
    due_at_unix_ms: int


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """Everything durable about one worker. `candidate` is evidence sent while quarantined, and
    `release_request` asks for a release on it. `demand` is open: no evidence has met it."""

    worker_id: str
    evidence_identity: str
    proof: Proof
    admission: Admission
    eligibility: Eligibility
    liveness: Liveness
    work: Work
    attestation_epoch: int
    session_epoch: int
    cleanup_verified: bool = True
    failed_at_attestation_epoch: int = 0
    drain_deadline_unix_ms: int | None = None
    last_lease_id: str | None = None
    last_fence: int = 0
    quarantine: Quarantine | None = None
    candidate: Proof | None = None
    release_request: ReleaseRequest | None = None
    demand: EvidenceDemand | None = None
    last_used_at_unix_ms: int = 0
    """When it last took a lease. For placing alone, as is what follows."""
    recent_outcomes: int = 0
    """How its last runs and offers ended: one bit each, the newest lowest, 1 where it failed."""
    labels: Labels = ()
    """What operators call it by; no decision asks for them."""

    @property
    def confined(self) -> bool:
        """Quarantined or banned."""
        return self.admission in {Admission.QUARANTINED, Admission.BANNED}


OUTCOMES = 8
"""So many runs and offers of a worker are remembered."""

type Score = tuple[int, int, int]
"""Less is better: how often it failed lately, by twos; when it was last used; how old the receipt
of its proxy is."""


def with_outcome(worker: WorkerRecord, failed: bool) -> WorkerRecord:
    """A run or an offer of the worker has ended so."""
    outcomes = (worker.recent_outcomes << 1 | failed) & ((1 << OUTCOMES) - 1)
    return replace(worker, recent_outcomes=outcomes)


def failures_of(worker: WorkerRecord) -> int:
    """How many of its last runs and offers failed."""
    return worker.recent_outcomes.bit_count()


def score(worker: WorkerRecord) -> Score:
    """In which order those are placed on who may be. It opens nothing to anybody."""
    failed_by_twos = (failures_of(worker) + 1) // 2
    return failed_by_twos, worker.last_used_at_unix_ms, -worker.proof.bound_at_unix_ms


def why_void(worker: WorkerRecord, request: ReleaseRequest) -> str | None:
    """Why the request no longer speaks of this worker; None while it does."""
    candidate = worker.candidate
    if worker.admission is not Admission.QUARANTINED:
        return f"the worker is {worker.admission}"
    if worker.quarantine != request.quarantine:
        return "the worker was quarantined again"
    if candidate is None:
        return "the evidence it rests on counts no more"
    if candidate.attestation_epoch != request.attestation_epoch:
        return "the worker has shown newer evidence"
    if candidate.key_sha256 != request.key_sha256:
        return "the worker has shown another key"
    if candidate.attested_until_unix_ms < request.expires_at_unix_ms:
        return "the evidence it rests on has ended"
    return None


def lifecycle_state(worker: WorkerRecord, now_unix_ms: int) -> WorkerLifecycleState:
    """The public state. First match wins."""
    attested = now_unix_ms < worker.proof.attested_until_unix_ms
    available = worker.liveness is Liveness.LIVE and attested and worker.demand is None
    ladder = (
        (worker.confined, WorkerLifecycleState.QUARANTINED),
        (worker.work is Work.FAILED, WorkerLifecycleState.FAILED),
        (worker.work is Work.ORPHANED, WorkerLifecycleState.ORPHANED),
        (worker.liveness is Liveness.STALE, WorkerLifecycleState.OFFLINE),
        (worker.eligibility is not Eligibility.ELIGIBLE, WorkerLifecycleState.DRAINING),
        (worker.work in {Work.BUSY, Work.CLEANUP}, WorkerLifecycleState.BUSY),
        (worker.work is Work.ASSIGNED, WorkerLifecycleState.ASSIGNED),
        (available, WorkerLifecycleState.AVAILABLE),
    )
    for matches, state in ladder:
        if matches:
            return state
    return WorkerLifecycleState.REGISTERED


def idle(worker: WorkerRecord) -> bool:
    """Whether the facts that no time ends let it take a lease."""
    return (
        worker.admission is Admission.ACTIVE
        and worker.eligibility is Eligibility.ELIGIBLE
        and worker.liveness is Liveness.LIVE
        and worker.work is Work.IDLE
        and worker.cleanup_verified
        and worker.demand is None
    )


def assignable(
    worker: WorkerRecord,
    heartbeat_deadline_unix_ms: int,
    lease_end_unix_ms: int,
    required_capabilities: tuple[str, ...],
    binding_max_age_ms: int,
    least_binding_level: BindingLevel,
    now_unix_ms: int,
) -> bool:
    """May this worker take a lease that ends then? The only predicate that says yes."""
    proof = worker.proof
    return (
        idle(worker)
        and now_unix_ms <= heartbeat_deadline_unix_ms
        and now_unix_ms < lease_end_unix_ms <= proof.attested_until_unix_ms
        and now_unix_ms < proof.bound_at_unix_ms + binding_max_age_ms
        and proof.binding_level >= least_binding_level
        and proof.capabilities.issuperset(required_capabilities)
    )
