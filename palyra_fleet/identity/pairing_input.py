"""What a caller of pairing sent, looked at before anything is counted, reserved or consumed.

Every refusal here is INVALID_ARGUMENT with its published text. Pure.
"""

import re
from typing import Final

from palyra_fleet.identity import pairing_transcript as transcript
from palyra_fleet.identity.certificate_request import checked_public_key
from palyra_fleet.identity.messages import BeginPairing, CompletePairing
from palyra_fleet.identity.records import ClientKind, CodeMethod
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, refuse
from palyra_fleet.wire.ids import is_canonical_ulid

PIN_DIGITS: Final = 6
MIN_TOKEN_BYTES: Final = 16
MAX_TOKEN_BYTES: Final = 128
_PIN: Final = re.compile(f"[0-9]{{{PIN_DIGITS}}}")


def kind_of(client_kind: str) -> ClientKind | NodeRefusal:
    try:
        return ClientKind(client_kind)
    except ValueError:
        return refuse(NodeReason.CLIENT_KIND)


def code_of(asked: BeginPairing) -> tuple[CodeMethod, str] | NodeRefusal:
    """The one code that was sent, well formed."""
    match asked.pin_code, asked.qr_token:
        case str() as pin, None:
            if _PIN.fullmatch(pin) is None:
                return refuse(NodeReason.PIN_MALFORMED)
            return CodeMethod.PIN, pin
        case None, str() as token:
            if not MIN_TOKEN_BYTES <= len(token.encode()) <= MAX_TOKEN_BYTES:
                return refuse(NodeReason.TOKEN_MALFORMED)
            return CodeMethod.QR, token
        case _:
            return refuse(NodeReason.METHOD_MISSING)


def session_refusal(session_id: str, device_id: str) -> NodeRefusal | None:
    """The two ids that completing and polling name."""
    if not session_id:
        return refuse(NodeReason.SESSION_EMPTY)
    if not is_canonical_ulid(device_id):
        return refuse(NodeReason.NOT_A_ULID, field="device_id")
    return None


def completion_refusal(asked: CompletePairing, *, csr_required: bool) -> NodeRefusal | None:
    """Why this completion is malformed, if it is."""
    refusal = session_refusal(asked.session_id, asked.device_id)
    if refusal is not None:
        return refusal
    kind = kind_of(asked.client_kind)
    if isinstance(kind, NodeRefusal):
        return kind
    if not 1 <= len(asked.proof.encode()) <= MAX_TOKEN_BYTES:
        return refuse(NodeReason.LENGTH, field="proof", expected=f"1 to {MAX_TOKEN_BYTES}")
    lengths = (
        ("device_signing_public", asked.device_signing_public, transcript.KEY_BYTES),
        ("device_x25519_public", asked.device_x25519_public, transcript.KEY_BYTES),
        ("challenge_signature", asked.challenge_signature, transcript.SIGNATURE_BYTES),
        ("transcript_mac", asked.transcript_mac, transcript.MAC_BYTES),
    )
    for field, value, expected in lengths:
        if len(value) != expected:
            return refuse(NodeReason.LENGTH, field=field, expected=str(expected))
    return csr_refusal(asked.certificate_signing_request_pem, required=csr_required)


def csr_refusal(pem: str, *, required: bool) -> NodeRefusal | None:
    """A request that is there must be good, also where none is required."""
    if not pem:
        return refuse(NodeReason.CSR_MISSING) if required else None
    if checked_public_key(pem) is None:
        return refuse(NodeReason.CSR_INVALID)
    return None
