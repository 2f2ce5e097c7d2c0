"""Attestations that satisfy an expectation, to be spoiled one field at a time."""

from dataclasses import replace

from palyra_fleet.attestation.evidence import WorkerAttestation, WorkerAttestationExpectation

IMAGE, BUILD, ARTIFACT = "1" * 64, "2" * 64, "3" * 64


def compatible_attestation(worker_id: str, **spoiled: str) -> WorkerAttestation:
    attestation = WorkerAttestation(
        worker_id=worker_id,
        image_digest_sha256=IMAGE,
        build_digest_sha256=BUILD,
        artifact_digest_sha256=ARTIFACT,
        egress_proxy_attested=True,
        issued_at_unix_ms=1_000,
        expires_at_unix_ms=10_000_000,
        nonce="n" * 43,
        key_sha256="a" * 64,
        evidence_kind="launcher",
        evidence_identity="identity",
        sdk_protocol_version=1,
        wit_abi_version="palyra-worker-abi/v1",
    )
    if "wit_abi_version" in spoiled:
        attestation = replace(attestation, wit_abi_version=spoiled["wit_abi_version"])
    return attestation


def expectation_for(attestation: WorkerAttestation) -> WorkerAttestationExpectation:
    return WorkerAttestationExpectation(
        image_digests_sha256=frozenset({attestation.image_digest_sha256}),
        build_digests_sha256=frozenset({attestation.build_digest_sha256}),
        artifact_digests_sha256=frozenset({attestation.artifact_digest_sha256}),
        egress_proxy_binding_verified=True,
    )
