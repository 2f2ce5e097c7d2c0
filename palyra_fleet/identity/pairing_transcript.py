"""The pairing transcript: what a device signs and what both sides derive, byte for byte.

Ids are ASCII, without separators or length prefixes: a signature payload is unambiguous because
everything before the proof has a fixed length or comes from a closed set. Published as protocol
version 1; clients of other makers compute the same bytes, so nothing here may ever change. Pure.
Sources: RFC 7748 (X25519), RFC 8032 (Ed25519), RFC 5869 (HKDF).
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palyra_fleet.wire.keys import signature_is_valid

PROTOCOL_VERSION: Final = 1
KEY_BYTES: Final = 32
CHALLENGE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MAC_BYTES: Final = 32
_SIGNED: Final = b"palyra-pairing-v1"
_CONTEXT: Final = b"palyra-mtls-transcript-v1"
_STATUS: Final = b"palyra-pairing-status-v1"


def signature_payload(
    version: int,
    session_id: str,
    challenge: bytes,
    gateway_ephemeral_public: bytes,
    device_id: str,
    client_kind: str,
    proof: str,
) -> bytes:
    """What the device signs with its Ed25519 key."""
    return b"".join(
        (
            _SIGNED,
            _version_bytes(version),
            session_id.encode(),
            challenge,
            gateway_ephemeral_public,
            device_id.encode(),
            client_kind.encode(),
            proof.encode(),
        )
    )


def transcript_context(version: int, session_id: str, device_id: str, client_kind: str) -> bytes:
    """What the MAC is bound to."""
    return b"".join(
        (
            _CONTEXT,
            session_id.encode(),
            _version_bytes(version),
            device_id.encode(),
            client_kind.encode(),
        )
    )


def public_of(secret: bytes) -> bytes:
    """The public X25519 key of a secret one."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def shared_secret(secret: bytes, peer_public: bytes) -> bytes | None:
    """X25519, or None for a peer's key of small order, with which anybody shares zeros."""
    try:
        peer = X25519PublicKey.from_public_bytes(peer_public)
        shared = X25519PrivateKey.from_private_bytes(secret).exchange(peer)
    except ValueError:
        return None
    return shared if any(shared) else None


def transcript_mac(shared: bytes, challenge: bytes, context: bytes) -> bytes:
    """HKDF-SHA256 over the shared secret: proof that the device holds its X25519 key."""
    return HKDF(SHA256(), MAC_BYTES, salt=challenge, info=context).derive(shared)


def same_bytes(one: bytes, other: bytes) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(one, other)


def identity_fingerprint(signing_public: bytes) -> str:
    """The name of the device's signing key; the fleet names enrolled keys the same way."""
    return hashlib.sha256(signing_public).hexdigest()


def transcript_hash(mac: bytes) -> str:
    """What both screens show, to be compared before an operator approves."""
    return hashlib.sha256(mac).hexdigest()


def status_payload(session_id: str) -> bytes:
    """What the device signs to ask for the outcome (our extension)."""
    return _STATUS + session_id.encode()


def status_signature_is_valid(signing_public: bytes, session_id: str, signature: bytes) -> bool:
    """Whether the paired signing key asked for this session's outcome; never raises."""
    return signature_is_valid(signing_public, signature, status_payload(session_id))


def _version_bytes(version: int) -> bytes:
    return version.to_bytes(4, "little")
