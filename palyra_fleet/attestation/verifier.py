"""Verifies a registration: evidence of a configured kind and a proxy's receipt over one nonce.

Only bytes whose signature was checked are parsed. The evidence is opened by the attestor of its
kind and must speak of the key that proved itself on the request; the receipt must be an enrolled
proxy's over the same nonce and key, and recent: that makes the binding `observed`, and `enforced`
where somebody other than the worker also says that nothing else leads out. The nonce is spent by
the caller. Inputs: request, enrolled keys, expectation. Output: AttestationResult or a refusal.
Pure. Times: Unix ms.
"""

from collections.abc import Mapping
from dataclasses import replace

from palyra_fleet.attestation.attestor import (
    Attestor,
    OpenedEvidence,
    TrustedKeys,
    parse,
    refused,
)
from palyra_fleet.attestation.attestors.launcher import LauncherAttestor
from palyra_fleet.attestation.evidence import WorkerAttestation, WorkerAttestationExpectation
from palyra_fleet.attestation.result import AttestationResult, BindingLevel
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.dsse import RECEIPT_TYPE, DsseEnvelope, EnvelopeRefused, open_envelope
from palyra_fleet.wire.models import ReceiptPayload, RegisterRequest

RECEIPT_MAX_AGE_MS = 60_000
RECEIPT_MAX_AHEAD_MS = 5_000
"""How far a proxy's clock may run ahead of the fleet's."""


type Attestors = Mapping[str, Attestor]

LAUNCHER_ONLY: Attestors = {LauncherAttestor.kind: LauncherAttestor()}


def attestor_for(request: RegisterRequest, attestors: Attestors) -> Attestor | Refusal:
    """The configured attestor of what the request brings."""
    kind = "launcher" if request.backing is None else request.backing.kind
    found = attestors.get(kind)
    return refused(f"no attestor '{kind}' is configured") if found is None else found


def open_evidence(
    request: RegisterRequest, attestors: Attestors, keys: TrustedKeys, now_unix_ms: int
) -> OpenedEvidence | Refusal:
    """The evidence, if its attestor vouches for it now."""
    attestor = attestor_for(request, attestors)
    if isinstance(attestor, Refusal):
        return attestor
    return attestor.open(request, keys, now_unix_ms)


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
    if evidence.image_vouched:
        vouched = frozenset({attestation.image_digest_sha256})
        expectation = replace(expectation, image_digests_sha256=vouched)
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
        binding_policy_digest=binding.policy_digest,
        evidence_kind=attestation.evidence_kind,
        measured=evidence.measured,
        credential_issued_at_unix_ms=evidence.credential_issued_at_unix_ms,
        known_until_unix_ms=evidence.known_until_unix_ms,
        labels=evidence.labels,
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
    except EnvelopeRefused as error:
        return _receipt_refused(str(error))
    payload = parse(ReceiptPayload, verified)
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
