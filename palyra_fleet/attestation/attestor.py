"""Attestor: the port behind which evidence of one kind is opened, and what opened evidence is.

An attestor answers two questions about verified bytes only: who vouches for this worker (its
`evidence_identity`, which tombstones stick to), and whose word its digests are. It does not compare
anything with reference values and does not spend nonces: `verifier` does both, for all kinds alike.
Only attestors that are configured exist; without any but `launcher`, and without an enrolled
launcher, nobody is admitted. Times: Unix ms. Pure but for `claim` of attestors that remember.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from pydantic import BaseModel, ValidationError

from palyra_fleet.attestation.evidence import WorkerAttestation
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.backing import EvidenceKind
from palyra_fleet.wire.dsse import (
    ATTESTATION_TYPE,
    EnvelopeRefused,
    VerifiedPayload,
    open_envelope_with,
)
from palyra_fleet.wire.keys import signature_is_valid, thumbprint_sha256
from palyra_fleet.wire.labels import Labels
from palyra_fleet.wire.models import AttestationPayload, RegisterRequest


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Enrolled public keys: launchers by thumbprint; proxies by thumbprint, with their name."""

    launchers: Mapping[str, bytes]
    proxies: Mapping[str, tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class OpenedEvidence:
    """Evidence that somebody vouches for, parsed but not yet compared to anything.

    `measured`: somebody other than the worker vouches for digests, capabilities and isolation. Of a
    worker that speaks for itself the fleet tells no digest on as a fact, and believes no capability
    and no isolation. `image_vouched`: a builder's provenance names this image, which takes the
    place of enrolled image digests. `launcher_sha256` names the enrolled launcher that signed, if
    one did. `credential_issued_at_unix_ms`: of a bearer credential, which admits one key: one that
    was issued no later than the last accepted admits no other. `known_until_unix_ms`: when the
    certificate or token behind it ends.
    """

    attestation: WorkerAttestation
    public_key: bytes
    sha256: str
    measured: bool = True
    image_vouched: bool = False
    credential_issued_at_unix_ms: int | None = None
    launcher_sha256: str | None = None
    known_until_unix_ms: int | None = None
    labels: Labels = ()


class Attestor(Protocol):
    """Opens evidence of one kind."""

    @property
    def kind(self) -> EvidenceKind: ...

    def open(
        self, request: RegisterRequest, keys: TrustedKeys, now_unix_ms: int
    ) -> OpenedEvidence | Refusal:
        """The evidence, if what backs it holds now."""

    def claim(self, request: RegisterRequest, now_unix_ms: int) -> Refusal | None:
        """Remember durably what this evidence uses up, before the worker is admitted. Blocks."""


def refused(why: str) -> Refusal:
    return Refusal(FleetReason.EVIDENCE_REFUSED, why)


def request_key(request: RegisterRequest) -> bytes:
    """The 32 raw bytes of the key that asks (the API has checked its proof)."""
    return base64.b64decode(request.public_key, validate=True)


def open_statement(
    request: RegisterRequest,
    kind: EvidenceKind,
    is_signed: Callable[[bytes, bytes], bool],
    names: Callable[[AttestationPayload], str] | str,
) -> OpenedEvidence | Refusal:
    """The worker's statement, if it is signed, of this kind, and about the key that asks.

    `is_signed` takes signature and message. `names` is the identity that the attestor vouches for,
    or how to take it from the statement; a statement with another identity is refused.
    """
    try:
        verified = open_envelope_with(request.evidence, ATTESTATION_TYPE, is_signed)
    except EnvelopeRefused as error:
        return refused(f"the evidence is refused: {error}")
    payload = parse(AttestationPayload, verified)
    if payload is None:
        return refused("the evidence is not a well-formed worker attestation")
    if payload.evidence_kind != kind:
        return refused(f"the evidence says that it is of kind {payload.evidence_kind}, not {kind}")
    public_key = request_key(request)
    if payload.key_sha256 != thumbprint_sha256(public_key):
        text = "the evidence speaks of another key than the one that asks"
        return Refusal(FleetReason.KEY_MISMATCH, text)
    identity = names if isinstance(names, str) else names(payload)
    if payload.evidence_identity != identity:
        return refused("the evidence speaks of another worker than the one that is vouched for")
    digest = hashlib.sha256(verified).hexdigest()
    return OpenedEvidence(WorkerAttestation.from_payload(payload), public_key, digest)


def until(opened: OpenedEvidence, end_unix_ms: int) -> OpenedEvidence:
    """The same evidence, good no longer than what backs it."""
    end = min(opened.attestation.expires_at_unix_ms, end_unix_ms)
    attestation = replace(opened.attestation, expires_at_unix_ms=end)
    return replace(opened, attestation=attestation, known_until_unix_ms=end_unix_ms)


def open_own_word(
    request: RegisterRequest, kind: EvidenceKind, identity: str, end_unix_ms: int
) -> OpenedEvidence | Refusal:
    """The statement that the asking key itself signed, good no longer than what backs it.

    Such a worker measured itself: neither capabilities nor isolation are believed.
    """
    own = partial(signature_is_valid, request_key(request))
    opened = open_statement(request, kind, own, identity)
    if isinstance(opened, Refusal):
        return opened
    opened = until(opened, end_unix_ms)
    attestation = replace(
        opened.attestation, supported_capabilities=frozenset(), egress_enforced=False
    )
    return replace(opened, attestation=attestation, measured=False)


def parse[Model: BaseModel](model: type[Model], verified: VerifiedPayload) -> Model | None:
    """Verified bytes as a model; None if they are not one. No other bytes are parsed."""
    try:
        return model.model_validate_json(verified)
    except ValidationError:
        return None
