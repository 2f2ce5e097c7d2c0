"""The one thing taken from a device's PKCS#10 request: a P-256 public key it proved to hold.

Names, extensions and attributes of the request are never looked at: what a certificate says is the
fleet's to decide. The signature must be whole octets: a BIT STRING may leave out bits at its end,
and a parser that ignores that accepts other bytes than were sent. Source: RFC 2986; X.690 8.6.2.
Pure.
"""

from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
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
        signed = request.is_signature_valid and _has_whole_octets(request)
    except NOT_PARSED:
        return None
    return key if signed and isinstance(key.curve, ec.SECP256R1) else None


def _has_whole_octets(request: x509.CertificateSigningRequest) -> bool:
    """Whether the last element, the signature, has an "unused bits" octet of zero."""
    der = request.public_bytes(serialization.Encoding.DER)
    return der[-len(request.signature) - 1] == 0
