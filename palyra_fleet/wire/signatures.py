"""Signatures by keys that others chose: one algorithm for each kind of key, nothing negotiated.

Ed25519 (RFC 8032); ECDSA on P-256 with SHA-256 and on P-384 with SHA-384 (FIPS 186-5); RSA of 2048
bits or more with PSS, SHA-256, MGF1 of the same and a salt as long as the digest (RFC 8017). Every
other key signs nothing here. Pure.
"""

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from palyra_fleet.wire.keys import signature_is_valid

LEAST_RSA_BITS: Final = 2048
_CURVE_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    ec.SECP256R1.name: hashes.SHA256(),
    ec.SECP384R1.name: hashes.SHA384(),
}
_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


class KeyNotSupported(Exception):
    """A key of a kind that is not used here; the text says which are."""


def supported(key: object) -> PublicKeyTypes:
    """The key, if it is of a kind that may sign. Raises KeyNotSupported."""
    match key:
        case Ed25519PublicKey():
            return key
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVE_HASHES:
            return key
        case RSAPublicKey() if key.key_size >= LEAST_RSA_BITS:
            return key
        case _:
            raise KeyNotSupported(
                f"expected Ed25519, ECDSA on P-256 or P-384, or RSA of {LEAST_RSA_BITS} bits"
            )


def is_signed_by(key: PublicKeyTypes, signature: bytes, message: bytes) -> bool:
    """True only if `signature` is this key's over `message`; never raises."""
    try:
        match key:
            case Ed25519PublicKey():
                return signature_is_valid(key.public_bytes_raw(), signature, message)
            case ec.EllipticCurvePublicKey() if key.curve.name in _CURVE_HASHES:
                key.verify(signature, message, ec.ECDSA(_CURVE_HASHES[key.curve.name]))
            case RSAPublicKey() if key.key_size >= LEAST_RSA_BITS:
                key.verify(signature, message, _PSS, hashes.SHA256())
            case _:
                return False
    except (InvalidSignature, ValueError):
        return False
    return True


def sign_with(key: PrivateKeyTypes, message: bytes) -> bytes:
    """The signature that `is_signed_by` accepts. Raises KeyNotSupported."""
    match key:
        case Ed25519PrivateKey():
            return key.sign(message)
        case ec.EllipticCurvePrivateKey() if key.curve.name in _CURVE_HASHES:
            return key.sign(message, ec.ECDSA(_CURVE_HASHES[key.curve.name]))
        case RSAPrivateKey() if key.key_size >= LEAST_RSA_BITS:
            return key.sign(message, _PSS, hashes.SHA256())
        case _:
            raise KeyNotSupported(
                f"expected Ed25519, ECDSA on P-256 or P-384, or RSA of {LEAST_RSA_BITS} bits"
            )
