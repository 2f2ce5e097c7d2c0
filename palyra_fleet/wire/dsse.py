"""DSSE envelopes: signed bytes with a type, of which only the verified payload is ever parsed.

The signature covers the pre-authentication encoding `DSSEv1 SP len(type) SP type SP len(payload) SP
payload`, so a payload signed as one type can never be read as another. Source: DSSE v1.0.2,
protocol.md. `VerifiedPayload` marks bytes whose signature was checked.
"""

import base64
import binascii
from collections.abc import Callable
from functools import partial
from typing import Annotated, NewType

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from palyra_fleet.wire.keys import SigningKey, signature_is_valid

VerifiedPayload = NewType("VerifiedPayload", bytes)

ATTESTATION_TYPE = "application/vnd.palyra.worker-attestation.v1+json"
RECEIPT_TYPE = "application/vnd.palyra.proxy-receipt.v1+json"
SUCCESSION_TYPE = "application/vnd.palyra.key-succession.v1+json"
VIOLATION_TYPE = "application/vnd.palyra.egress-violation.v1+json"

MAX_PAYLOAD_BYTES = 64 * 1024
_Base64 = Annotated[str, StringConstraints(max_length=MAX_PAYLOAD_BYTES * 2)]


class EnvelopeRefused(Exception):
    """The envelope has the wrong type, no signature of the key, or is not base64."""


class DsseSignature(BaseModel):
    """One signature: `keyid` is the signer's thumbprint, `sig` is base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    keyid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    sig: Annotated[str, StringConstraints(max_length=1024)]


class DsseEnvelope(BaseModel):
    """The JSON form of an envelope. Field names are those of the DSSE standard."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    payloadType: Annotated[str, StringConstraints(max_length=128)]  # noqa: N815 (wire name)
    payload: _Base64
    signatures: Annotated[tuple[DsseSignature, ...], Field(max_length=4)]


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def seal(key: SigningKey, payload_type: str, payload: bytes) -> DsseEnvelope:
    """Sign `payload` as `payload_type` with one key."""
    return seal_with(key.sign, key.thumbprint, payload_type, payload)


def seal_with(
    sign: Callable[[bytes], bytes], key_id: str, payload_type: str, payload: bytes
) -> DsseEnvelope:
    """The same with a key of any kind. `key_id`: 64 hex digits that name it."""
    signature = sign(pre_authentication_encoding(payload_type, payload))
    return DsseEnvelope(
        payloadType=payload_type,
        payload=base64.b64encode(payload).decode(),
        signatures=(DsseSignature(keyid=key_id, sig=base64.b64encode(signature).decode()),),
    )


def open_envelope(envelope: DsseEnvelope, payload_type: str, public_key: bytes) -> VerifiedPayload:
    """The payload, if exactly one signature is there and it is this Ed25519 key's. Else
    EnvelopeRefused."""
    return open_envelope_with(envelope, payload_type, partial(signature_is_valid, public_key))


def open_envelope_with(
    envelope: DsseEnvelope, payload_type: str, is_signed: Callable[[bytes, bytes], bool]
) -> VerifiedPayload:
    """The same for a key of any kind: `is_signed` takes signature and message."""
    if envelope.payloadType != payload_type:
        raise EnvelopeRefused(f"expected payload type {payload_type}")
    if len(envelope.signatures) != 1:
        raise EnvelopeRefused("expected exactly one signature")
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signatures[0].sig, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeRefused("payload or signature is not base64") from error
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise EnvelopeRefused(f"payload is larger than {MAX_PAYLOAD_BYTES} bytes")
    encoding = pre_authentication_encoding(payload_type, payload)
    if not is_signed(signature, encoding):
        raise EnvelopeRefused("the signature is not this key's")
    return VerifiedPayload(payload)
