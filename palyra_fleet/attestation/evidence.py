"""WorkerAttestation and what is expected of it: checks in the published order and words. Pure.

The order is part of the contract, since the first failing check names the refusal: id, not yet
valid, expired, missing egress proxy binding, image, build and artifact digest, compatibility. A set
of reference values that is empty refuses. `egress_proxy_binding_verified` is the fleet's own
finding from a proxy's receipt; the worker's claim `egress_proxy_attested` must hold as well, and
alone proves nothing. Times: Unix ms; valid from issue (inclusive) to expiry (exclusive).
Source: specification 20, section 2.
"""

from dataclasses import dataclass, field

from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.ids import is_canonical_ulid
from palyra_fleet.wire.models import AttestationPayload


@dataclass(frozen=True, slots=True)
class WorkerAttestationExpectation:
    """Reference values and requirements. Sets that are empty accept nothing."""

    image_digests_sha256: frozenset[str] = frozenset()
    build_digests_sha256: frozenset[str] = frozenset()
    artifact_digests_sha256: frozenset[str] = frozenset()
    egress_proxy_binding_verified: bool = False
    sdk_protocol_version: int = 1
    wit_abi_version: str = "palyra-worker-abi/v1"
    capability_authority_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerAttestation:
    """What a launcher said about a worker. Made only from verified bytes."""

    worker_id: str
    image_digest_sha256: str
    build_digest_sha256: str
    artifact_digest_sha256: str
    egress_proxy_attested: bool
    issued_at_unix_ms: int
    expires_at_unix_ms: int
    nonce: str = field(repr=False)
    key_sha256: str
    evidence_kind: str
    evidence_identity: str
    supported_capabilities: frozenset[str] = frozenset()
    capability_authority_sha256: str | None = None
    sdk_protocol_version: int = 0
    wit_abi_version: str = ""
    egress_enforced: bool = False

    @classmethod
    def from_payload(cls, payload: AttestationPayload) -> "WorkerAttestation":
        values = payload.model_dump()
        values["supported_capabilities"] = frozenset(payload.supported_capabilities)
        return cls(**values)

    def validate(
        self, expectation: WorkerAttestationExpectation, now_unix_ms: int
    ) -> Refusal | None:
        """The first failing check, or None."""
        if not is_canonical_ulid(self.worker_id):
            return Refusal(FleetReason.ID_INVALID, "worker attestation worker_id is not a ULID")
        if now_unix_ms < self.issued_at_unix_ms:
            return Refusal(FleetReason.NOT_YET_VALID, "worker attestation is not yet valid")
        if now_unix_ms >= self.expires_at_unix_ms:
            return Refusal(FleetReason.ATTESTATION_EXPIRED, "worker attestation has expired")
        if not (self.egress_proxy_attested and expectation.egress_proxy_binding_verified):
            text = "worker attestation is missing an egress proxy binding"
            return Refusal(FleetReason.MISSING_BINDING, text)
        return self._digest_refusal(expectation) or self._compatibility_refusal(expectation)

    def _digest_refusal(self, expectation: WorkerAttestationExpectation) -> Refusal | None:
        table = (
            (
                "image",
                self.image_digest_sha256,
                expectation.image_digests_sha256,
                FleetReason.DIGEST_IMAGE,
            ),
            (
                "build",
                self.build_digest_sha256,
                expectation.build_digests_sha256,
                FleetReason.DIGEST_BUILD,
            ),
            (
                "artifact",
                self.artifact_digest_sha256,
                expectation.artifact_digests_sha256,
                FleetReason.DIGEST_ARTIFACT,
            ),
        )
        for name, digest, accepted, reason in table:
            if digest not in accepted:
                text = f"worker attestation {name} digest did not match the expected value"
                return Refusal(reason, text)
        return None

    def _compatibility_refusal(self, expectation: WorkerAttestationExpectation) -> Refusal | None:
        authority = expectation.capability_authority_sha256
        compatible = (
            self.sdk_protocol_version == expectation.sdk_protocol_version
            and self.wit_abi_version == expectation.wit_abi_version
            and (authority is None or self.capability_authority_sha256 == authority)
        )
        if compatible:
            return None
        return Refusal(FleetReason.INCOMPATIBLE, "worker compatibility check failed")
