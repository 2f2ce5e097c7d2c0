"""The JSON bodies of the fleet API, as strangers may send them.

Every model is frozen and refuses unknown fields. Times are Unix milliseconds (`_unix_ms`), lengths
of time are milliseconds (`_ms`), digests are 64 lower-case hex digits, ids are ULIDs (26 characters
of upper-case Crockford base 32). A value that came in through one of these models is well formed,
not yet believed.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from palyra_fleet.wire.artifacts import MAX_ARTIFACTS, MAX_TRANSPORT_BYTES, ArtifactPath
from palyra_fleet.wire.backing import Backing, EvidenceKind
from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.ids import NAME_PATTERN, ULID_PATTERN

Ulid = Annotated[str, StringConstraints(pattern=f"^{ULID_PATTERN}$")]
DigestSha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
Principal = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$")]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Base64Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]
Nonce = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
UnixMs = Annotated[int, Field(ge=0, le=2**53)]
DurationMs = Annotated[int, Field(ge=1, le=7 * 24 * 3600 * 1000)]


class WireModel(BaseModel):
    """Base: frozen, unknown fields refused, no coercion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NonceRequest(WireModel):
    """Asks for a nonce bound to this key. `public_key` is base64 of 32 raw Ed25519 bytes."""

    public_key: Base64Key
    purpose: Literal["register"]


class NonceAnswer(WireModel):
    nonce: Nonce
    expires_at_unix_ms: UnixMs


class ReceiptPayload(WireModel):
    """What a proxy signs when a worker shows it its key through the proxy (binding `observed`)."""

    proxy_id: Name
    worker_key_sha256: DigestSha256
    policy_digest: str
    nonce: Nonce
    at_unix_ms: UnixMs


class AttestationPayload(WireModel):
    """The evidence a launcher signs: what runs, with which key, over which nonce."""

    worker_id: Ulid
    image_digest_sha256: DigestSha256
    build_digest_sha256: DigestSha256
    artifact_digest_sha256: DigestSha256
    egress_proxy_attested: bool
    supported_capabilities: tuple[Name, ...] = Field(max_length=64)
    capability_authority_sha256: DigestSha256 | None = None
    sdk_protocol_version: int = Field(ge=0, le=1000)
    wit_abi_version: Annotated[str, StringConstraints(max_length=64)]
    issued_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs
    nonce: Nonce
    key_sha256: DigestSha256
    evidence_kind: EvidenceKind
    evidence_identity: Principal
    """What the attestor calls this worker for ever, whatever it is named: tombstones stick here."""
    egress_enforced: bool = False
    """The launcher runs the program where nothing but the proxy leads out, and has tried."""


class RegisterRequest(WireModel):
    """Registration: signed evidence, what backs it, and the proxy's receipt over the same nonce.
    Without `backing` the evidence must be an enrolled launcher's.
    `continues_session`: a running session proves itself again, with its own key; it is refused once
    a newer session has registered with another. Without it, a new session begins. `succession`: the
    session goes on with a new key, since its own one signs for that (`SuccessionPayload`).
    """

    public_key: Base64Key
    evidence: DsseEnvelope
    receipt: DsseEnvelope
    backing: Backing | None = None
    continues_session: bool = False
    succession: DsseEnvelope | None = None


class RegisterAnswer(WireModel):
    """`session_epoch` is the one to use from now on; calls with an earlier one are refused."""

    worker_id: Ulid
    session_epoch: int
    state: str
    heartbeat_within_ms: int
    attested_until_unix_ms: UnixMs


class HeldLease(WireModel):
    lease_id: Ulid
    fence: int


class HeartbeatRequest(WireModel):
    session_epoch: int
    seq: Annotated[int, Field(ge=1)]
    held_leases: tuple[HeldLease, ...] = Field(default=(), max_length=16)
    waits: bool = False
    """The worker waits for a run and may be offered one; it counts until the next beat."""


class EvidenceDemanded(WireModel):
    """The worker must attest again, with `new_key` under a new key; what it holds ends at
    `due_at_unix_ms` otherwise."""

    new_key: bool
    due_at_unix_ms: UnixMs


class HeartbeatAnswer(WireModel):
    """`stop_leases` names leases the fleet does not hold: the worker ends those runs at once.
    `demanded` is there until the worker has shown it."""

    state: str
    heartbeat_within_ms: int
    stop_leases: tuple[Ulid, ...] = ()
    demanded: EvidenceDemanded | None = None


class WorkspaceScopeModel(WireModel):
    workspace_root: Annotated[str, StringConstraints(max_length=1024)]
    allowed_paths: tuple[Annotated[str, StringConstraints(max_length=1024)], ...] = Field(
        max_length=64
    )
    read_only: bool = False


class ArtifactModel(WireModel):
    """One file that is carried into or out of a run."""

    path: ArtifactPath
    digest_sha256: DigestSha256
    size_bytes: Annotated[int, Field(ge=0, le=MAX_TRANSPORT_BYTES)]


class ArtifactTransportModel(WireModel):
    """The inputs of a run with their digests, and what may come out, of how many bytes in all."""

    inputs: tuple[ArtifactModel, ...] = Field(default=(), max_length=MAX_ARTIFACTS)
    outputs: tuple[ArtifactPath, ...] = Field(default=(), max_length=MAX_ARTIFACTS)
    max_output_bytes: Annotated[int, Field(ge=0, le=MAX_TRANSPORT_BYTES)] = 0


class ApprovalAsked(WireModel):
    """What a rule is to approve, where no operator did: the worker's own word."""

    tool_name: Name
    egress_profile: Name


class LeaseRequest(WireModel):
    session_epoch: int
    run_id: Principal
    ttl_ms: DurationMs
    required_capabilities: tuple[Name, ...] = Field(default=(), max_length=64)
    workspace_scope: WorkspaceScopeModel
    artifact_transport: ArtifactTransportModel = ArtifactTransportModel()
    approval: ApprovalAsked | None = None
    offer_id: Ulid | None = None
    """The offer that is taken; it is refused where that has ended or is another worker's."""


class LeaseAnswer(WireModel):
    """A lease. `egress_secret` is shown once, to the worker that holds the lease."""

    lease_id: Ulid
    fence: int
    worker_id: Ulid
    run_id: str
    egress_profile: str
    expires_at_unix_ms: UnixMs
    egress_secret: Annotated[str, StringConstraints(min_length=43, max_length=43)] = Field(
        repr=False
    )


class LeaseCommand(WireModel):
    """`start` and `renew` of a lease."""

    session_epoch: int
    fence: int
    ttl_ms: DurationMs | None = None


class CleanupReport(WireModel):
    """What the worker runtime did after the run; all must hold for the worker to stay trusted.

    `inputs` are what the program was given, as found right before it started; `outputs` what was
    carried out. Both must be what the lease's `artifact_transport` allows.
    """

    workspace_removed: bool
    processes_ended: bool
    secrets_removed: bool
    inputs: tuple[ArtifactModel, ...] = Field(default=(), max_length=MAX_ARTIFACTS)
    outputs: tuple[ArtifactModel, ...] = Field(default=(), max_length=MAX_ARTIFACTS)


class CompleteRequest(WireModel):
    session_epoch: int
    fence: int
    cleanup: CleanupReport


class LeaseState(WireModel):
    lease_id: Ulid
    state: str
    expires_at_unix_ms: UnixMs


class ViolationPayload(WireModel):
    """Signed evidence of one violation, chained per proxy by `seq` and `previous_sha256`."""

    proxy_id: Name
    seq: Annotated[int, Field(ge=1)]
    previous_sha256: DigestSha256
    worker_id: Ulid
    lease_id: Ulid
    fence: int
    reason: str
    consequence: Literal["strike", "quarantine"]
    strike_limit: int = Field(default=0, ge=0)
    strike_window_ms: int = Field(default=0, ge=0)
    rule_id: str | None
    policy_file: str | None
    policy_line: int | None
    policy_digest: str
    fingerprint: DigestSha256
    target: Annotated[str, StringConstraints(max_length=600)]
    decision_id: Ulid
    at_unix_ms: UnixMs


class ViolationAnswer(WireModel):
    """`outcome` is what the fleet did with it; the same evidence twice answers the same.

    `recorded`: kept, and nobody was stopped for it, since the fleet forgot the worker or never gave
    that lease. A proxy that blocked the worker by itself keeps it blocked.
    """

    accepted_seq: int
    outcome: Literal["quarantined", "already_quarantined", "struck", "recorded"]
    duplicate: bool


class ProxyBeat(WireModel):
    """A proxy is there: how far its spool of evidence goes, and which policy it has in force."""

    spooled_seq: Annotated[int, Field(ge=0)]
    policy_digest: Annotated[str, StringConstraints(max_length=128)]


class EvidenceChain(WireModel):
    """How far the fleet holds a proxy's evidence. The next must be `seq` + 1 and follow it."""

    seq: int
    last_sha256: DigestSha256


class GrantRequest(WireModel):
    """Asks to approve one run; with `worker_id`, for that worker only; with `read_only`, only in a
    workspace that the run cannot write to."""

    run_id: Principal
    tool_name: Name
    principal: Principal
    egress_profile: Name
    ttl_ms: DurationMs
    max_uses: Annotated[int, Field(ge=1, le=1)] = 1
    worker_id: Ulid | None = None
    read_only: bool = False


class GrantView(WireModel):
    grant_id: Ulid
    run_id: str
    tool_name: str
    principal: str
    egress_profile: str
    expires_at_unix_ms: UnixMs
    approved_by: str
    uses: int
    max_uses: int
    withdrawn: bool
    worker_id: Ulid | None = None
    rule_id: str | None = None
    read_only: bool = False


class ReferenceValues(WireModel):
    """Digests the verifier accepts, per field. A set that ends empty refuses everybody."""

    image_digests_sha256: tuple[DigestSha256, ...] = ()
    build_digests_sha256: tuple[DigestSha256, ...] = ()
    artifact_digests_sha256: tuple[DigestSha256, ...] = ()


class EnrolKeyRequest(WireModel):
    """Enrols a launcher or a proxy under a name by its public key."""

    name: Name
    public_key: Base64Key


class ReasonRequest(WireModel):
    """An operator's change and why; the reason goes into the event log."""

    reason: ShortText


class DrainRequest(WireModel):
    reason: ShortText
    deadline_ms: DurationMs


class DrainOneRequest(DrainRequest):
    """A drain that names its worker in the body."""

    worker_id: Ulid


class EvidenceDemandView(EvidenceDemanded):
    """What an operator demanded of a worker, and it has not shown yet."""

    asked_by: str
    why: str
    asked_at_unix_ms: UnixMs


class WorkerView(WireModel):
    """A worker as operators see it. `state` is the public WorkerLifecycleState. A worker that
    drains has `drain_deadline_unix_ms`: a lease that it still holds then ends."""

    worker_id: Ulid
    state: str
    admission: str
    eligibility: str
    liveness: str
    work: str
    attestation_epoch: int
    session_epoch: int
    attested_until_unix_ms: int
    key_sha256: str
    artifact_digest_sha256: str
    attestor: str
    capabilities: tuple[str, ...]
    labels: dict[str, str]
    binding_proxy_id: str | None
    binding_level: str
    lease_id: str | None
    run_id: str | None
    fence: int | None
    quarantine_reason: str | None
    quarantined_at_unix_ms: int | None
    quarantine_evidence_sha256: str | None
    quarantine_decision_id: str | None
    demanded: EvidenceDemandView | None = None
    drain_deadline_unix_ms: int | None = None


class EventView(WireModel):
    """One entry of the fleet's hash-chained event log."""

    seq: int
    at_unix_ms: int
    reason: str
    actor: str
    worker_id: str | None
    lease_id: str | None
    detail: dict[str, str | int | bool | None]
    previous_sha256: str
    sha256: str


class ViolationView(WireModel):
    """Evidence as received, with what the fleet did about it."""

    evidence_sha256: str
    received_at_unix_ms: int
    outcome: str
    payload: ViolationPayload


class Problem(BaseModel):
    """RFC 9457 problem+json. `reason` is stable; `detail` is for people."""

    model_config = ConfigDict(extra="allow")
    type: str = "about:blank"
    title: str
    status: int
    detail: str
    reason: str
