"""A node's keys: Ed25519 to sign the pairing, X25519 for its transcript, P-256 for certificates.

The P-256 key of a certificate is made here and never leaves: the fleet gets a PKCS#10 request. A
certificate is taken only if it is for that key, names this device, and was signed by the root we
trust. Sources: specification 30, sections 3 and 4; RFC 2986; RFC 5280.
"""

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from palyra_fleet.node_agent.material import Certificate


class CertificateRefused(Exception):
    """What came back from the fleet is not the certificate we asked for; it is not kept."""


@dataclass(frozen=True, slots=True)
class CertificateKey:
    """A new P-256 key and the request that proves it is held."""

    private_key_pem: str = field(repr=False)
    request_pem: str
    public_key: ec.EllipticCurvePublicKey

    @classmethod
    def make(cls, device_id: str) -> "CertificateKey":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Palyra Device {device_id}")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signed = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return cls(pem.decode(), signed.decode(), key.public_key())

    def certificate(
        self, certificate_pem: str, device_id: str, roots_pem: str, expires_at_unix_ms: int
    ) -> Certificate:
        """The certificate with its key, once it is seen to be ours. Raises CertificateRefused."""
        try:
            leaf = x509.load_pem_x509_certificate(certificate_pem.encode())
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound) as error:
            raise CertificateRefused("the fleet sent no certificate") from error
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if leaf.public_key() != self.public_key:
            raise CertificateRefused("the fleet sent a certificate for another key")
        if len(uris) != 1 or not uris[0].endswith(f"/device/{device_id}"):
            raise CertificateRefused("the fleet sent a certificate for another device")
        if not _is_signed_by(leaf, roots_pem):
            raise CertificateRefused("the certificate is not signed by the trusted root")
        return Certificate(certificate_pem, self.private_key_pem, expires_at_unix_ms)


def merged_roots(pinned_pem: str, offered_pem: str) -> str:
    """The roots to trust from now on: what the fleet offers, if it holds the pinned one or is
    vouched for over a connection that the pinned one secured (which is how it came). Raises
    CertificateRefused for something that is no certificate."""
    if not offered_pem.strip():
        return pinned_pem
    try:
        offered = x509.load_pem_x509_certificates(offered_pem.encode())
    except ValueError as error:
        raise CertificateRefused("the fleet sent no trust root") from error
    return "".join(root.public_bytes(serialization.Encoding.PEM).decode() for root in offered)


def _is_signed_by(leaf: x509.Certificate, roots_pem: str) -> bool:
    for root in x509.load_pem_x509_certificates(roots_pem.encode()):
        try:
            leaf.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
