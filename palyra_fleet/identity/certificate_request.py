"""The one thing taken from a device's PKCS#10 request: a P-256 public key it proved to hold.

Names, extensions and attributes of the request are never looked at: what a certificate says is the
fleet's to decide. Source: RFC 2986. Pure.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from palyra_fleet.identity.certificate_profiles import NOT_PARSED

MAX_PEM_BYTES: Final = 8 * 1024
_LINE: Final = "-----BEGIN CERTIFICATE REQUEST-----"


def checked_public_key(pem: str) -> ec.EllipticCurvePublicKey | None:
    """The request's key, or None for anything but one request signed by its own P-256 key."""
    if len(pem) > MAX_PEM_BYTES or not pem.isascii() or pem.count("-----BEGIN ") != 1:
        return None
    if _LINE not in pem:
        return None
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return None
        signed = request.is_signature_valid
    except NOT_PARSED:
        return None
    return key if signed and isinstance(key.curve, ec.SECP256R1) else None
