"""Verifies a registration: launcher evidence and proxy receipt over one nonce and one key. Pure.

Only bytes whose signature was checked are parsed. The evidence must be an enrolled launcher's and
speak of the key that proved itself on the request; the receipt must be an enrolled proxy's over the
same nonce and key, and recent: that makes the binding `observed`, and `enforced` where the launcher
also says that it put the worker where nothing else leads out. The nonce is spent by the caller.
Inputs: request, enrolled keys, expectation. Output: AttestationResult or a refusal. Times: Unix ms.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError

from palyra_fleet.attestation.evidence import WorkerAttestation, WorkerAttestationExpectation
from palyra_fleet.attestation.result import AttestationResult, BindingLevel
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.dsse import (
    ATTESTATION_TYPE,
    RECEIPT_TYPE,
    DsseEnvelope,
    EnvelopeRefused,
    VerifiedPayload,
    open_envelope,
)
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.models import AttestationPayload, ReceiptPayload, RegisterRequest

RECEIPT_MAX_AGE_MS = 60_000
RECEIPT_MAX_AHEAD_MS = 5_000
"""How far a proxy's clock may run ahead of the fleet's."""


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Enrolled public keys: launchers by thumbprint; proxies by thumbprint, with their name."""

    launchers: Mapping[str, bytes]
    proxies: Mapping[str, tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class OpenedEvidence:
    """Evidence an enrolled launcher signed, parsed but not yet compared to anything."""

    attestation: WorkerAttestation
    public_key: bytes
    sha256: str
    launcher_sha256: str


def open_evidence(request: RegisterRequest, keys: TrustedKeys) -> OpenedEvidence | Refusal:
    """The evidence, if an enrolled launcher signed it for the key that asks."""
    public_key = base64.b64decode(request.public_key, validate=True)
    signer = _signer(request.evidence)
    launcher = keys.launchers.get(signer)
    if launcher is None:
        text = "the evidence is not signed by an enrolled launcher"
        return Refusal(FleetReason.EVIDENCE_REFUSED, text)
    try:
        verified = open_envelope(request.evidence, ATTESTATION_TYPE, launcher)
    except EnvelopeRefused as refused:
        return Refusal(FleetReason.EVIDENCE_REFUSED, f"the evidence is refused: {refused}")
    payload = _parse(AttestationPayload, verified)
    if payload is None:
        text = "the evidence is not a well-formed worker attestation"
        return Refusal(FleetReason.EVIDENCE_REFUSED, text)
    if payload.key_sha256 != thumbprint_sha256(public_key):
        text = "the evidence speaks of another key than the one that asks"
        return Refusal(FleetReason.KEY_MISMATCH, text)
    digest = hashlib.sha256(verified).hexdigest()
    return OpenedEvidence(WorkerAttestation.from_payload(payload), public_key, digest, signer)


def judge(
    evidence: OpenedEvidence,
    receipt: DsseEnvelope,
    keys: TrustedKeys,
    expectation: WorkerAttestationExpectation,
    now_unix_ms: int,
) -> AttestationResult | Refusal:
    """Is the worker what we expect, and did a proxy see its key? The evidence is checked first."""
    attestation = evidence.attestation
    binding = _open_receipt(receipt, keys, attestation, now_unix_ms)
    bound = not isinstance(binding, Refusal)
    expectation = replace(expectation, egress_proxy_binding_verified=bound)
    refusal = attestation.validate(expectation, now_unix_ms)
    if refusal is not None and refusal.reason is not FleetReason.MISSING_BINDING:
        return refusal
    if isinstance(binding, Refusal):
        return binding
    if refusal is not None:
        return refusal
    return AttestationResult(
        worker_id=attestation.worker_id,
        evidence_identity=attestation.evidence_identity,
        public_key=evidence.public_key,
        key_sha256=attestation.key_sha256,
        image_digest_sha256=attestation.image_digest_sha256,
        build_digest_sha256=attestation.build_digest_sha256,
        artifact_digest_sha256=attestation.artifact_digest_sha256,
        supported_capabilities=attestation.supported_capabilities,
        evidence_until_unix_ms=attestation.expires_at_unix_ms,
        evidence_sha256=evidence.sha256,
        binding_level=_level(attestation),
        binding_proxy_id=binding.proxy_id,
        bound_at_unix_ms=min(binding.at_unix_ms, now_unix_ms),
        launcher_sha256=evidence.launcher_sha256,
    )


def _level(attestation: WorkerAttestation) -> BindingLevel:
    """A receipt makes the binding observed. That nothing else leads out is the launcher's word,
    signed, on top of that."""
    return BindingLevel.ENFORCED if attestation.egress_enforced else BindingLevel.OBSERVED


def _open_receipt(
    receipt: DsseEnvelope, keys: TrustedKeys, attestation: WorkerAttestation, now_unix_ms: int
) -> ReceiptPayload | Refusal:
    proxy = keys.proxies.get(_signer(receipt))
    if proxy is None:
        return _receipt_refused("it is not signed by an enrolled proxy")
    name, public_key = proxy
    try:
        verified = open_envelope(receipt, RECEIPT_TYPE, public_key)
    except EnvelopeRefused as refused:
        return _receipt_refused(str(refused))
    payload = _parse(ReceiptPayload, verified)
    if payload is None:
        return _receipt_refused("it is not well formed")
    if payload.proxy_id != name:
        return _receipt_refused("it names another proxy than the one that signed it")
    if payload.worker_key_sha256 != attestation.key_sha256:
        return _receipt_refused("it speaks of another worker key")
    if payload.nonce != attestation.nonce:
        return _receipt_refused("it is over another nonce than the evidence")
    age_ms = now_unix_ms - payload.at_unix_ms
    if not -RECEIPT_MAX_AHEAD_MS <= age_ms <= RECEIPT_MAX_AGE_MS:
        return _receipt_refused("it is not recent")
    return payload


def _receipt_refused(why: str) -> Refusal:
    return Refusal(FleetReason.RECEIPT_REFUSED, f"the proxy's receipt is refused: {why}")


def _signer(envelope: DsseEnvelope) -> str:
    return envelope.signatures[0].keyid if envelope.signatures else ""


def _parse[M: BaseModel](model: type[M], verified: VerifiedPayload) -> M | None:
    try:
        return model.model_validate_json(verified)
    except ValidationError:
        return None
