"""Whether the key that a session has now signs for its next one. Pure.

Input is the envelope of a registration, the evidence that it came with, and the worker's current
public key (32 bytes); output is the thumbprint of the key that signed, None, or a refusal. An
envelope in another key's name says nothing: the fleet's answer to this very registration may have
been lost, and the next key be the current one by now. One in the current key's name must be right
in everything. Source: decision 0078.
"""

from palyra_fleet.attestation.attestor import parse, refused
from palyra_fleet.attestation.evidence import WorkerAttestation
from palyra_fleet.refusals import Refusal
from palyra_fleet.wire.dsse import SUCCESSION_TYPE, DsseEnvelope, EnvelopeRefused, open_envelope
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.reattest_models import SuccessionPayload


def succeeded_key(
    envelope: DsseEnvelope | None, attestation: WorkerAttestation, current_key: bytes
) -> str | Refusal | None:
    """The thumbprint of the current key, if it signed for the key of this evidence."""
    current = thumbprint_sha256(current_key)
    if envelope is None or [one.keyid for one in envelope.signatures] != [current]:
        return None
    try:
        verified = open_envelope(envelope, SUCCESSION_TYPE, current_key)
    except EnvelopeRefused as error:
        return refused(f"the succession is refused: {error}")
    payload = parse(SuccessionPayload, verified)
    if payload is None:
        return refused("the succession is not well formed")
    said = (payload.worker_id, payload.nonce, payload.next_key_sha256)
    if said != (attestation.worker_id, attestation.nonce, attestation.key_sha256):
        return refused("the succession speaks of another worker, nonce or key than the evidence")
    return current
