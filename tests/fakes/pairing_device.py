"""A device that pairs, written from the published protocol with `cryptography` alone.

It shares no code with the fleet, so that a mistake there is not repeated here.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from palyra_fleet.identity.messages import AskPairingStatus, BegunPairing, CompletePairing


def csr_pem(
    key: Any, common_name: str = "anything", extensions: tuple[x509.ExtensionType, ...] = ()
) -> str:
    """A PKCS#10 request."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    algorithm = None if isinstance(key, Ed25519PrivateKey) else SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


@dataclass(slots=True)
class PairingDevice:
    """Keys of one device."""

    device_id: str
    client_kind: str = "node"
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    exchange: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    tls: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def signing_public(self) -> bytes:
        return self.signing.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.signing_public).hexdigest()

    def csr(self) -> str:
        return csr_pem(self.tls)

    def completion(self, begun: BegunPairing, proof: str, **changes: Any) -> CompletePairing:
        """The completion of a session, or one with some fields changed."""
        version = (1).to_bytes(4, "little")
        signed = (
            b"palyra-pairing-v1"
            + version
            + begun.session_id.encode()
            + begun.challenge
            + begun.gateway_ephemeral_public
            + self.device_id.encode()
            + self.client_kind.encode()
            + proof.encode()
        )
        context = (
            b"palyra-mtls-transcript-v1"
            + begun.session_id.encode()
            + version
            + self.device_id.encode()
            + self.client_kind.encode()
        )
        gateway = X25519PublicKey.from_public_bytes(begun.gateway_ephemeral_public)
        shared = self.exchange.exchange(gateway)
        fields: dict[str, Any] = {
            "version": 1,
            "session_id": begun.session_id,
            "device_id": self.device_id,
            "client_kind": self.client_kind,
            "proof": proof,
            "device_signing_public": self.signing_public,
            "device_x25519_public": self.exchange.public_key().public_bytes_raw(),
            "challenge_signature": self.signing.sign(signed),
            "transcript_mac": HKDF(SHA256(), 32, begun.challenge, context).derive(shared),
            "certificate_signing_request_pem": self.csr(),
        }
        return CompletePairing(**(fields | changes))

    def poll(self, session_id: str) -> AskPairingStatus:
        signature = self.signing.sign(b"palyra-pairing-status-v1" + session_id.encode())
        return AskPairingStatus(session_id, self.device_id, signature)
