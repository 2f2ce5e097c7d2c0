"""What a machine's certificate calls it, and the identity that evidence under it has. Pure."""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def identity_of(certificate: x509.Certificate) -> str:
    """Who the certificate names for ever. Raises ValueError when it names more than one URI."""
    uris = uris_of(certificate)
    if len(uris) > 1:
        raise ValueError("it names more than one URI")
    if uris:
        return f"x509pop:uri:{hashlib.sha256(uris[0].encode()).hexdigest()}"
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"x509pop:key:{hashlib.sha256(public).hexdigest()}"


def uris_of(certificate: x509.Certificate) -> list[str]:
    return _names_of(certificate, x509.UniformResourceIdentifier)


def names_of_host(certificate: x509.Certificate) -> list[str]:
    return _names_of(certificate, x509.DNSName)


def _names_of(
    certificate: x509.Certificate, kind: type[x509.UniformResourceIdentifier] | type[x509.DNSName]
) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(found.value.get_values_for_type(kind))
