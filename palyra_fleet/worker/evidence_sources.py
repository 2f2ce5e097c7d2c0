"""Evidence for fleets that admit workers otherwise than by an enrolled launcher's word alone.

Each class is the worker's side of one attestor (see docs/attestation.md). Files are read anew for
each proof, so that a renewed certificate or a rotated token is used without a restart. Private keys
and tokens are read from files only and are in no repr.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from palyra_fleet.wire.backing import (
    JoinTokenBacking,
    ProvenanceBacking,
    ProvenanceEnvelope,
    ServiceAccountBacking,
    X509Backing,
)
from palyra_fleet.wire.certificate_names import identity_of
from palyra_fleet.wire.dsse import ATTESTATION_TYPE, seal, seal_with
from palyra_fleet.wire.signatures import KeyNotSupported, sign_with
from palyra_fleet.worker.launcher import (
    EVIDENCE_LIFETIME_MS,
    Evidence,
    EvidenceUnavailable,
    Launcher,
    Statement,
)

_MAX_FILE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class CertificateEvidence:
    """`x509pop`: a machine's certificate chain (PEM, leaf first) and its private key (PEM)."""

    chain_file: Path
    key_file: Path

    def attest(self, statement: Statement) -> Evidence:
        try:
            chain = x509.load_pem_x509_certificates(_bytes(self.chain_file))
            identity = identity_of(chain[0])
        except ValueError as error:
            raise EvidenceUnavailable(f"{self.chain_file}: expected PEM certificates") from error
        key = self._key()
        public = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        payload = statement.payload("x509pop", identity, EVIDENCE_LIFETIME_MS)
        try:
            envelope = seal_with(
                partial(sign_with, key),
                hashlib.sha256(public).hexdigest(),
                ATTESTATION_TYPE,
                payload,
            )
        except KeyNotSupported as error:
            raise EvidenceUnavailable(f"{self.key_file}: {error}") from error
        der = tuple(base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain)
        return Evidence(envelope, X509Backing(chain=der))

    def _key(self) -> PrivateKeyTypes:
        try:
            return load_pem_private_key(_bytes(self.key_file), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise EvidenceUnavailable(f"{self.key_file}: expected a PEM private key") from error


@dataclass(frozen=True, slots=True)
class JoinTokenEvidence:
    """`join_token`: a file with the token, and the identity that it was minted for."""

    token_file: Path
    identity: str

    def attest(self, statement: Statement) -> Evidence:
        backing = _backing(JoinTokenBacking, self.token_file, "a join token")
        payload = statement.payload(
            "join_token", f"join_token:{self.identity}", EVIDENCE_LIFETIME_MS
        )
        return Evidence(seal(statement.key, ATTESTATION_TYPE, payload), backing)


@dataclass(frozen=True, slots=True)
class ServiceAccountEvidence:
    """`k8s_psat`: the file that the kubelet keeps fresh, and what the fleet calls the cluster."""

    token_file: Path
    cluster: str

    def attest(self, statement: Statement) -> Evidence:
        backing = _backing(ServiceAccountBacking, self.token_file, "a service account token")
        identity = f"k8s_psat:{self.cluster}:{self._pod_uid(backing.token)}"
        payload = statement.payload("k8s_psat", identity, EVIDENCE_LIFETIME_MS)
        return Evidence(seal(statement.key, ATTESTATION_TYPE, payload), backing)

    def _pod_uid(self, token: str) -> str:
        """Of our own token, for the fleet to compare with what it verifies."""
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
            return str(claims["kubernetes.io"]["pod"]["uid"])
        except (jwt.PyJWTError, KeyError, TypeError) as error:
            text = f"{self.token_file}: expected a token that is bound to a pod"
            raise EvidenceUnavailable(text) from error


@dataclass(frozen=True, slots=True)
class ProvenanceEvidence:
    """`oci_dsse`: a launcher, and the provenance of the worker's image as its builder signed it."""

    launcher: Launcher
    provenance_file: Path

    def attest(self, statement: Statement) -> Evidence:
        try:
            envelope = ProvenanceEnvelope.model_validate_json(_bytes(self.provenance_file))
        except ValidationError:
            raise EvidenceUnavailable(f"{self.provenance_file}: expected a DSSE envelope") from None
        backing = ProvenanceBacking(provenance=envelope)
        return Evidence(self.launcher.signed(statement, "oci_dsse"), backing)


def _backing[B: (JoinTokenBacking, ServiceAccountBacking)](
    model: type[B], file: Path, expected: str
) -> B:
    try:
        return model(token=_bytes(file).decode("ascii").strip())
    except (ValidationError, UnicodeDecodeError):
        raise EvidenceUnavailable(f"{file}: expected {expected}") from None


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise EvidenceUnavailable(f"{file}: cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise EvidenceUnavailable(f"{file}: is larger than {_MAX_FILE_BYTES} bytes")
    return content
