"""Real keys, certificates, tokens and provenance for every attestor, made anew for each test.

A `Prover` is the worker's side of one kind: what the fleet's settings must say, what an operator
has to do first, how evidence is signed and what backs it. `stranger` signs as the same kind of
signer that nobody trusts.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from palyra_fleet.attestation.attestor import Attestor
from palyra_fleet.attestation.attestors.k8s_psat import ClusterTrust, ServiceAccountAttestor
from palyra_fleet.attestation.attestors.oci_dsse import IN_TOTO_TYPE, ProvenanceAttestor
from palyra_fleet.attestation.attestors.x509pop import CertificateSelector, X509PopAttestor
from palyra_fleet.settings.file import SettingsFile
from palyra_fleet.wire.backing import (
    Backing,
    EvidenceKind,
    JoinTokenBacking,
    ProvenanceBacking,
    ProvenanceEnvelope,
    ServiceAccountBacking,
    X509Backing,
)
from palyra_fleet.wire.certificate_names import identity_of
from palyra_fleet.wire.dsse import DsseEnvelope, pre_authentication_encoding, seal, seal_with
from palyra_fleet.wire.join_models import MintJoinToken
from palyra_fleet.wire.key_sets import read_key_set
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.signatures import sign_with
from tests.fakes.fleet_world import IMAGE, START_UNIX_MS, FleetWorld, WorkerPen
from tests.fakes.hostile_certificates import key_usage

NOW = datetime.fromtimestamp(START_UNIX_MS / 1000, UTC)
SPIFFE = "spiffe://example.org/machine/one"
POD = "0d8b260e-ef0e-45fb-be8e-ff44f97722e8"


class Prover:
    """A launcher's evidence, which is also what the other kinds differ from."""

    kind: EvidenceKind = "launcher"

    def __init__(self) -> None:
        self.launcher = SigningKey.generate()

    def file(self) -> SettingsFile:
        return SettingsFile({self.kind: attestor} if (attestor := self.attestor()) else {})

    def attestor(self) -> Attestor | None:
        return None

    async def prepare(self, world: FleetWorld) -> None:
        self.launcher = world.launcher

    def identity(self, worker: WorkerPen) -> str:
        return f"unit-{worker.worker_id}"

    def backing(self, worker: WorkerPen) -> Backing | None:
        del worker
        return None

    def seal(self, worker: WorkerPen, payload_type: str, payload: bytes) -> DsseEnvelope:
        del worker
        return seal(self.launcher, payload_type, payload)

    def stranger(self, worker: WorkerPen, payload_type: str, payload: bytes) -> DsseEnvelope:
        """As `seal`, under the same name, by a key that nobody trusts."""
        good = self.seal(worker, payload_type, payload)
        forged = seal(SigningKey.generate(), payload_type, payload).signatures[0]
        signature = forged.model_copy(update={"keyid": good.signatures[0].keyid})
        return good.model_copy(update={"signatures": (signature,)})


def new_authority(name: str = "machines") -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=3000))
        .not_valid_after(NOW + timedelta(days=3000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


@dataclass(slots=True)
class MachinePlan:
    """A machine's certificate; a flaw changes one field."""

    names: tuple[x509.GeneralName, ...] = (x509.UniformResourceIdentifier(SPIFFE),)
    begins: timedelta = timedelta(hours=-1)
    ends: timedelta = timedelta(hours=24)
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH
    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    common_name: str = "machine-1"

    def issue(
        self,
        key: ec.EllipticCurvePrivateKey,
        ca: x509.Certificate,
        *others: x509.ExtensionType,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.common_name)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        made = (
            x509.CertificateBuilder(ca.subject, subject, self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + self.begins)
            .not_valid_after(NOW + self.ends)
            .add_extension(issuer, critical=False)
            .add_extension(x509.ExtendedKeyUsage([self.purpose]), critical=False)
        )
        if self.names:
            made = made.add_extension(x509.SubjectAlternativeName(self.names), critical=False)
        for other in others:
            made = made.add_extension(other, critical=False)
        return made.sign(key, hashes.SHA256())


class X509Prover(Prover):
    kind: EvidenceKind = "x509pop"

    def __init__(self, plan: MachinePlan | None = None) -> None:
        super().__init__()
        self.ca_key, self.ca = new_authority()
        self.plan = plan or MachinePlan()
        self.certificate = self.plan.issue(self.ca_key, self.ca)
        self.selectors = [CertificateSelector(uri="spiffe://example.org/machine/*")]

    def attestor(self) -> Attestor:
        return X509PopAttestor([self.ca], self.selectors)

    def identity(self, worker: WorkerPen) -> str:
        del worker
        try:
            return identity_of(self.certificate)
        except ValueError:  # of a certificate with a flaw
            return "x509pop:none"

    def backing(self, worker: WorkerPen) -> Backing:
        del worker
        der = self.certificate.public_bytes(Encoding.DER)
        return X509Backing(chain=(base64.b64encode(der).decode(),))

    def seal(self, worker: WorkerPen, payload_type: str, payload: bytes) -> DsseEnvelope:
        del worker
        return seal_with(partial(sign_with, self.plan.key), "0" * 64, payload_type, payload)


class JoinTokenProver(Prover):
    kind: EvidenceKind = "join_token"
    text = "t" * 43

    def file(self) -> SettingsFile:
        return SettingsFile(join_tokens=True)

    async def prepare(self, world: FleetWorld) -> None:
        asked = MintJoinToken(identity="dev-1", reason="a try")
        self.text = (await world.service.mint_join_token("alice", asked)).token

    def identity(self, worker: WorkerPen) -> str:
        del worker
        return "join_token:dev-1"

    def backing(self, worker: WorkerPen) -> Backing:
        del worker
        return JoinTokenBacking(token=self.text)

    def seal(self, worker: WorkerPen, payload_type: str, payload: bytes) -> DsseEnvelope:
        return seal(worker.key, payload_type, payload)


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a projected token, as Kubernetes makes them."""
    at = START_UNIX_MS // 1000
    made = {
        "aud": ["palyra-fleet"],
        "exp": at + 3000,
        "iat": at - 600,
        "iss": "https://kubernetes.example",
        "jti": "e51f1fbc-4733-4b85-a59f-ba80c0523874",
        "kubernetes.io": {
            "namespace": "agents",
            "node": {"name": "node-1", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a"},
            "pod": {"name": "worker-1", "uid": POD},
            "serviceaccount": {"name": "runner", "uid": "e6a8680e-d103-4cce-80ea-03acbbeacf7d"},
        },
        "nbf": at - 600,
        "sub": "system:serviceaccount:agents:runner",
    }
    return {**made, **changes}


@cache
def cluster_key() -> rsa.RSAPrivateKey:
    """One for all tests: making one takes a while."""
    return rsa.generate_private_key(65537, 2048)


class ServiceAccountProver(Prover):
    kind: EvidenceKind = "k8s_psat"

    def __init__(self, signer: Any = None, algorithm: str = "RS256") -> None:
        super().__init__()
        self.signer = signer or cluster_key()
        self.algorithm = algorithm
        self.claims = claims()

    def key_set(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        key = json.loads(algorithm.to_jwk(self.signer.public_key()))  # type: ignore[attr-defined]
        return {"keys": [{**key, "kid": "key-1", "use": "sig", "alg": self.algorithm}]}

    def attestor(self) -> Attestor:
        return ServiceAccountAttestor(
            ClusterTrust(
                "prod",
                "https://kubernetes.example",
                "palyra-fleet",
                read_key_set(self.key_set()),
                [("agents", "runner")],
            )
        )

    def token(self, **changes: Any) -> str:
        return jwt.encode(
            {**self.claims, **changes}, self.signer, self.algorithm, headers={"kid": "key-1"}
        )

    def identity(self, worker: WorkerPen) -> str:
        del worker
        return f"k8s_psat:prod:{POD}"

    def backing(self, worker: WorkerPen) -> Backing:
        del worker
        return ServiceAccountBacking(token=self.token())

    def seal(self, worker: WorkerPen, payload_type: str, payload: bytes) -> DsseEnvelope:
        return seal(worker.key, payload_type, payload)


def statement(**changes: Any) -> dict[str, Any]:
    """SLSA provenance of the image that workers of the tests run."""
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "worker", "digest": {"sha256": IMAGE}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {"buildType": "https://builder.example/image/v1"},
            "runDetails": {"builder": {"id": "https://builder.example/ci"}},
        },
    }
    return {**made, **changes}


class ProvenanceProver(Prover):
    kind: EvidenceKind = "oci_dsse"

    def __init__(self) -> None:
        super().__init__()
        self.builder = ec.generate_private_key(ec.SECP256R1())
        self.statement: Mapping[str, Any] = statement()
        self.payload_type = IN_TOTO_TYPE

    def attestor(self) -> Attestor:
        return ProvenanceAttestor([self.builder.public_key()], {"https://builder.example/ci"})

    def envelope(self, signer: Any = None) -> ProvenanceEnvelope:
        payload = json.dumps(self.statement).encode()
        message = pre_authentication_encoding(self.payload_type, payload)
        signature = sign_with(signer or self.builder, message)
        return ProvenanceEnvelope.model_validate(
            {
                "payloadType": self.payload_type,
                "payload": base64.b64encode(payload).decode(),
                "signatures": [{"sig": base64.b64encode(signature).decode()}],
            }
        )

    def backing(self, worker: WorkerPen) -> Backing:
        del worker
        return ProvenanceBacking(provenance=self.envelope())


PROVERS: tuple[type[Prover], ...] = (
    Prover,
    X509Prover,
    JoinTokenProver,
    ServiceAccountProver,
    ProvenanceProver,
)
