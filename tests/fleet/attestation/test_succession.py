"""Whether a session's key signs for the next one: what is right in everything, and each flaw."""

from dataclasses import dataclass
from typing import Any

import pytest

from palyra_fleet.attestation.evidence import WorkerAttestation
from palyra_fleet.attestation.succession import succeeded_key
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.dsse import (
    ATTESTATION_TYPE,
    SUCCESSION_TYPE,
    DsseEnvelope,
    DsseSignature,
    seal,
)
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.reattest_models import SuccessionPayload
from tests.fakes.ledger_world import ulid

CURRENT, NEXT, STRANGER = (SigningKey.of_seed(bytes([n]) * 32) for n in (1, 2, 3))
WORKER, NONCE = ulid(7), "n" * 43


@dataclass(frozen=True)
class Asked:
    """The key that the evidence speaks of."""

    key: SigningKey = NEXT

    @property
    def attestation(self) -> WorkerAttestation:
        return WorkerAttestation(
            worker_id=WORKER,
            image_digest_sha256="a" * 64,
            build_digest_sha256="b" * 64,
            artifact_digest_sha256="c" * 64,
            egress_proxy_attested=True,
            issued_at_unix_ms=0,
            expires_at_unix_ms=1,
            nonce=NONCE,
            key_sha256=self.key.thumbprint,
            evidence_kind="launcher",
            evidence_identity="worker-7",
        )


def signed(key: SigningKey = CURRENT, kind: str = SUCCESSION_TYPE, **changes: Any) -> DsseEnvelope:
    said = {"worker_id": WORKER, "nonce": NONCE, "next_key_sha256": NEXT.thumbprint, **changes}
    payload = SuccessionPayload.model_validate(said)
    return seal(key, kind, payload.model_dump_json().encode())


def judged(envelope: DsseEnvelope | None) -> str | Refusal | None:
    return succeeded_key(envelope, Asked().attestation, CURRENT.public_key)


def test_the_current_key_signs_for_the_next_one() -> None:
    assert judged(signed()) == CURRENT.thumbprint


@pytest.mark.parametrize(
    "envelope",
    [None, signed(STRANGER), signed(NEXT), signed().model_copy(update={"signatures": ()})],
    ids=["none", "a stranger's", "the next key's own", "nobody's"],
)
def test_what_is_not_in_the_current_keys_name_says_nothing(envelope: DsseEnvelope | None) -> None:
    assert judged(envelope) is None


def forged() -> DsseEnvelope:
    """In the current key's name, by another."""
    strangers = signed(STRANGER).signatures[0].sig
    named = DsseSignature(keyid=CURRENT.thumbprint, sig=strangers)
    return signed(STRANGER).model_copy(update={"signatures": (named,)})


@pytest.mark.parametrize(
    "envelope",
    [
        forged(),
        signed(kind=ATTESTATION_TYPE),
        signed(worker_id=ulid(8)),
        signed(nonce="m" * 43),
        signed(next_key_sha256=STRANGER.thumbprint),
        seal(CURRENT, SUCCESSION_TYPE, b"{}"),
    ],
    ids=["forged", "another type", "another worker", "another nonce", "another key", "not one"],
)
def test_what_is_in_its_name_must_be_right_in_everything(envelope: DsseEnvelope) -> None:
    outcome = judged(envelope)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is FleetReason.EVIDENCE_REFUSED
