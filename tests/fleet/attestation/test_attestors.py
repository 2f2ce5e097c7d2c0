"""What only one attestor knows: chains and selectors, tokens, provenance; one flaw a row."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from palyra_fleet.attestation.attestors.x509pop import CertificateSelector
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.backing import ServiceAccountBacking, X509Backing
from palyra_fleet.wire.key_sets import KeySetError, read_key_set
from tests.fakes.attestation_material import (
    SPIFFE,
    MachinePlan,
    ProvenanceProver,
    Prover,
    ServiceAccountProver,
    X509Prover,
    claims,
    cluster_key,
    new_authority,
    statement,
)
from tests.fakes.fleet_world import WorkerPen
from tests.fakes.ledger_world import ulid
from tests.fleet.attestation.test_attestor_contract import registration, world_of

W1 = ulid(1)


async def outcome(prover: Prover, tmp_path: Path, **changes: Any) -> str:
    """ "admitted", or the text of the refusal."""
    async with world_of(prover, tmp_path) as world:
        try:
            await world.service.register(
                await registration(prover, world, WorkerPen(W1), **changes)
            )
        except FleetRefusal as refusal:
            assert refusal.reason is FleetReason.EVIDENCE_REFUSED
            return refusal.text
        return "admitted"


URI = x509.UniformResourceIdentifier
CERTIFICATES: list[tuple[str, MachinePlan, str]] = [
    ("good", MachinePlan(), "admitted"),
    ("an Ed25519 key", MachinePlan(key=ed25519.Ed25519PrivateKey.generate()), "admitted"),
    ("an RSA key", MachinePlan(key=cluster_key()), "admitted"),
    ("expired", MachinePlan(ends=timedelta(seconds=-1)), "the certificate has expired"),
    ("not yet valid", MachinePlan(begins=timedelta(seconds=1)), "the certificate is not yet valid"),
    (
        "for servers",
        MachinePlan(purpose=ExtendedKeyUsageOID.SERVER_AUTH),
        "the certificate does not lead to a configured authority",
    ),
    (
        "without names",
        MachinePlan(names=()),
        "the certificate does not lead to a configured authority",
    ),
    (
        "another machine",
        MachinePlan(names=(URI("spiffe://example.org/person/one"),)),
        "no selector admits this certificate",
    ),
    (
        "two identities",
        MachinePlan(names=(URI(SPIFFE), URI(SPIFFE + "2"))),
        "the certificate is refused: it names more than one URI",
    ),
]


@pytest.mark.parametrize(
    ("plan", "said"), [c[1:] for c in CERTIFICATES], ids=[c[0] for c in CERTIFICATES]
)
async def test_a_certificate_counts_only_if_everything_about_it_is_right(
    plan: MachinePlan, said: str, tmp_path: Path
) -> None:
    prover = X509Prover()
    prover.plan, prover.certificate = plan, plan.issue(prover.ca_key, prover.ca)
    assert await outcome(prover, tmp_path) == said


async def test_a_key_of_a_kind_that_is_not_used_proves_nothing(tmp_path: Path) -> None:
    prover = X509Prover()
    usual = prover.plan
    odd = MachinePlan(key=ec.generate_private_key(ec.SECP521R1()))
    prover.certificate = odd.issue(prover.ca_key, prover.ca)
    prover.plan = usual
    said = await outcome(prover, tmp_path)
    assert said.startswith("the certificate is refused: expected Ed25519, ECDSA on P-256 or P-384")


async def test_a_chain_of_another_authority_is_refused(tmp_path: Path) -> None:
    prover = X509Prover()
    key, ca = new_authority()  # of the same name
    prover.certificate = prover.plan.issue(key, ca)
    said = await outcome(prover, tmp_path)
    assert said == "the certificate does not lead to a configured authority"


class OddVersionProver(X509Prover):
    """Sends a certificate of a version that there is not."""

    def backing(self, worker: WorkerPen) -> X509Backing:
        del worker
        der = self.certificate.public_bytes(Encoding.DER)
        version = bytes.fromhex("a003020102")
        assert der.count(version) == 1
        odd = der.replace(version, bytes.fromhex("a003020137"))
        return X509Backing(chain=(base64.b64encode(odd).decode(),))


async def test_a_certificate_that_cannot_be_read_is_refused_and_is_no_fault_of_ours(
    tmp_path: Path,
) -> None:
    said = await outcome(OddVersionProver(), tmp_path)
    assert said == "the certificate chain is not base64 of DER certificates"


async def test_an_authority_that_signs_odd_names_admits_nobody_by_them(tmp_path: Path) -> None:
    prover = X509Prover()
    alternative = x509.SubjectAlternativeName.oid
    odd = x509.UnrecognizedExtension(alternative, bytes.fromhex("3003870101"))
    prover.certificate = MachinePlan(names=()).issue(prover.ca_key, prover.ca, odd)
    said = await outcome(prover, tmp_path)
    assert said == "the certificate chain is not base64 of DER certificates"


@pytest.mark.parametrize(
    ("selector", "admits"),
    [
        (CertificateSelector(), False),
        (CertificateSelector(uri=SPIFFE), True),
        (CertificateSelector(uri="spiffe://example.org/machine/*"), True),
        (CertificateSelector(uri="spiffe://example.org/machine"), False),
        (CertificateSelector(dns="one.workers.example"), True),
        (CertificateSelector(dns="*.workers.example"), True),
        (CertificateSelector(dns="*.example"), False),
        (CertificateSelector(dns="workers.example"), False),
        (CertificateSelector(common_name="machine-*"), True),
        (CertificateSelector(uri=SPIFFE, common_name="other"), False),
    ],
)
def test_a_selector_admits_what_matches_all_of_it(
    selector: CertificateSelector, admits: bool
) -> None:
    plan = MachinePlan(names=(URI(SPIFFE), x509.DNSName("one.workers.example")))
    assert selector.admits(plan.issue(*new_authority())) is admits


async def test_a_worker_that_goes_on_under_a_renewed_certificate_is_the_same_worker(
    tmp_path: Path,
) -> None:
    prover = X509Prover()
    before = prover.identity(WorkerPen(W1))
    prover.plan = MachinePlan()
    prover.certificate = prover.plan.issue(prover.ca_key, prover.ca)
    assert prover.identity(WorkerPen(W1)) == before
    assert await outcome(prover, tmp_path) == "admitted"


AT = claims()["iat"]
TOKENS: list[tuple[str, dict[str, Any], str]] = [
    ("good", {}, "admitted"),
    ("one audience as text", {"aud": "palyra-fleet"}, "admitted"),
    ("another audience", {"aud": ["other"]}, "the service account token is for another audience"),
    ("no audience", {"aud": []}, "the service account token does not verify"),
    (
        "another issuer",
        {"iss": "https://other.example"},
        "the service account token is another cluster's",
    ),
    ("expired", {"exp": AT + 600}, "the service account token has expired"),
    ("not yet valid", {"nbf": AT + 601}, "the service account token is not yet valid"),
    ("issued later", {"iat": AT + 601}, "the service account token is not yet valid"),
    ("of a year", {"exp": AT + 86_401}, "the service account token lives longer than a day"),
    (
        "a contradiction",
        {"sub": "system:serviceaccount:agents:admin"},
        "the service account token contradicts itself",
    ),
    (
        "no pod",
        {"kubernetes.io": {**claims()["kubernetes.io"], "pod": None}},
        "the service account token does not verify",
    ),
    ("a time that is text", {"exp": str(AT + 3600)}, "the service account token does not verify"),
]


@pytest.mark.parametrize(("changes", "said"), [t[1:] for t in TOKENS], ids=[t[0] for t in TOKENS])
async def test_a_token_counts_only_if_every_claim_is_right(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    prover = ServiceAccountProver()
    prover.claims |= changes
    assert await outcome(prover, tmp_path) == said


async def test_another_service_account_is_not_admitted(tmp_path: Path) -> None:
    prover = ServiceAccountProver()
    inside = prover.claims["kubernetes.io"]
    prover.claims["kubernetes.io"] = {
        **inside,
        "serviceaccount": {"name": "x", "uid": "0" * 8 + "-0000" * 3 + "-" + "0" * 12},
    }
    prover.claims["sub"] = "system:serviceaccount:agents:x"
    assert await outcome(prover, tmp_path) == "the service account is not admitted"


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def unsigned(prover: ServiceAccountProver) -> str:
    return f"{part({'alg': 'none', 'kid': 'key-1'})}.{part(prover.claims)}.AA"


def hmac_with_the_public_key(prover: ServiceAccountProver) -> str:
    """RFC 8725, section 2.1: the public key taken for a shared secret."""
    pem = prover.signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = f"{part({'alg': 'HS256', 'kid': 'key-1'})}.{part(prover.claims)}"
    mac = hmac.new(pem, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def another_algorithm(prover: ServiceAccountProver) -> str:
    return jwt.encode(prover.claims, prover.signer, "RS512", headers={"kid": "key-1"})


def another_key(prover: ServiceAccountProver) -> str:
    stranger = rsa.generate_private_key(65537, 2048)
    return jwt.encode(prover.claims, stranger, "RS256", headers={"kid": "key-1"})


def no_kid(prover: ServiceAccountProver) -> str:
    return jwt.encode(prover.claims, prover.signer, "RS256")


def a_key_of_its_own(prover: ServiceAccountProver) -> str:
    """The header brings the key that verifies it (RFC 8725, section 2.4)."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    own = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(stranger.public_key()))  # type: ignore[attr-defined]
    return jwt.encode(prover.claims, stranger, "ES256", headers={"kid": "key-1", "jwk": own})


def deep(prover: ServiceAccountProver) -> str:
    header = base64.urlsafe_b64encode(b"[" * 5_000).decode().rstrip("=")
    return f"{header}.{part(prover.claims)}.AA"


NOT_VERIFIED = "the service account token does not verify"
FORGED: list[tuple[Callable[[ServiceAccountProver], str], str]] = [
    (unsigned, NOT_VERIFIED),
    (hmac_with_the_public_key, NOT_VERIFIED),
    (another_algorithm, NOT_VERIFIED),
    (another_key, NOT_VERIFIED),
    (a_key_of_its_own, NOT_VERIFIED),
    (no_kid, "the service account token is signed by a key nobody configured"),
    (deep, "the service account token is not a JWT"),
]


@pytest.mark.parametrize(("forge", "said"), FORGED, ids=[f[0].__name__ for f in FORGED])
async def test_the_algorithm_is_that_of_the_configured_key(
    forge: Callable[[ServiceAccountProver], str], said: str, tmp_path: Path
) -> None:
    prover = ServiceAccountProver()
    token = forge(prover)
    prover.backing = lambda worker: ServiceAccountBacking(token=token)  # type: ignore[method-assign]
    assert await outcome(prover, tmp_path) == said


async def test_a_cluster_that_signs_with_p256_is_taken(tmp_path: Path) -> None:
    prover = ServiceAccountProver(ec.generate_private_key(ec.SECP256R1()), "ES256")
    assert await outcome(prover, tmp_path) == "admitted"


async def test_a_stolen_token_admits_no_second_key(tmp_path: Path) -> None:
    prover = ServiceAccountProver()
    async with world_of(prover, tmp_path) as world:
        await world.service.register(await registration(prover, world, WorkerPen(W1)))
        thief = WorkerPen(W1)
        with pytest.raises(FleetRefusal, match="has admitted another key"):
            await world.service.register(await registration(prover, world, thief))
        prover.claims["iat"] -= 1  # an older token of the same pod
        with pytest.raises(FleetRefusal, match="has admitted another key"):
            await world.service.register(await registration(prover, world, thief))
        prover.claims["iat"] += 2  # the next one: the pod itself, restarted
        assert (
            await world.service.register(await registration(prover, world, thief))
        ).session_epoch == 2


KEY_SETS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("empty", lambda _: {"keys": []}, "at least one key"),
    ("no list", lambda _: {}, "at least one key"),
    (
        "symmetric",
        lambda _: {"keys": [{"kty": "oct", "k": "AAAA", "kid": "key-1"}]},
        "public RSA or EC",
    ),
    ("twice", lambda good: {"keys": [good, good]}, "stands twice"),
    ("private", lambda good: {"keys": [{**good, "d": "AAAA"}]}, "public RSA or EC"),
    ("no kid", lambda good: {"keys": [{**good, "kid": None}]}, "with a kid"),
    ("another algorithm", lambda good: {"keys": [{**good, "alg": "HS256"}]}, "expected alg RS256"),
    ("damaged", lambda good: {"keys": [{**good, "n": "!"}]}, "not a key of kind RSA"),
    ("short", lambda good: {"keys": [{**good, "n": "wAAAAQ"}]}, "RSA of 2048 bits"),
]


@pytest.mark.parametrize(("spoil", "said"), [k[1:] for k in KEY_SETS], ids=[k[0] for k in KEY_SETS])
def test_a_key_set_with_a_flaw_is_refused_when_it_is_read(
    spoil: Callable[[dict[str, Any]], Any], said: str
) -> None:
    (good,) = ServiceAccountProver().key_set()["keys"]
    with pytest.raises(KeySetError, match=said):
        read_key_set(spoil(good))


PREDICATE = statement()["predicate"]
PROVENANCE: list[tuple[str, dict[str, Any], str]] = [
    ("good", {}, "admitted"),
    ("fields that we do not know", {"more": 1}, "admitted"),
    (
        "another image",
        {"subject": [{"digest": {"sha256": "9" * 64}}]},
        "the provenance is about another image",
    ),
    (
        "another digest",
        {"subject": [{"digest": {"sha512": "1" * 64}}]},
        "the provenance is about another image",
    ),
    ("no subject", {"subject": []}, "the provenance is not a"),
    (
        "another statement",
        {"_type": "https://in-toto.io/Statement/v0.1"},
        "the provenance is not a",
    ),
    (
        "another predicate",
        {"predicateType": "https://slsa.dev/provenance/v0.2"},
        "the provenance is not a",
    ),
    (
        "another builder",
        {
            "predicate": {
                **PREDICATE,
                "runDetails": {"builder": {"id": "https://builder.example/ci/"}},
            }
        },
        "the provenance names a builder that nobody configured",
    ),
    ("no builder", {"predicate": {**PREDICATE, "runDetails": {}}}, "the provenance is not a"),
]


@pytest.mark.parametrize(
    ("changes", "said"), [p[1:] for p in PROVENANCE], ids=[p[0] for p in PROVENANCE]
)
async def test_provenance_counts_only_if_everything_about_it_is_right(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    prover = ProvenanceProver()
    prover.statement = statement(**changes)
    assert (await outcome(prover, tmp_path)).startswith(said)


async def test_provenance_of_an_unknown_builder_key_or_type_is_refused(tmp_path: Path) -> None:
    stranger, other = ProvenanceProver(), ProvenanceProver()
    good = stranger.builder
    stranger.builder = ec.generate_private_key(ec.SECP256R1())
    attestor = stranger.attestor()
    stranger.builder = good
    stranger.attestor = lambda: attestor  # type: ignore[method-assign]
    said = await outcome(stranger, tmp_path)
    assert said == "the provenance is not signed by a configured builder"
    other.payload_type = "application/json"
    said = await outcome(other, tmp_path)
    assert said == "the provenance is not of payload type application/vnd.in-toto+json"


async def test_provenance_stands_in_for_enrolled_image_digests(tmp_path: Path) -> None:
    prover = ProvenanceProver()
    prover.statement = statement(subject=[{"digest": {"sha256": "7" * 64}}])
    assert await outcome(prover, tmp_path, image_digest_sha256="7" * 64) == "admitted"


@pytest.mark.parametrize("make", [X509Prover, ServiceAccountProver])
async def test_only_what_somebody_else_measured_is_told_to_proxies(
    make: type[Prover], tmp_path: Path
) -> None:
    prover = make()
    async with world_of(prover, tmp_path) as world:
        worker = WorkerPen(W1)
        request = await registration(prover, world, worker, egress_enforced=True)
        worker.session_epoch = (await world.service.register(request)).session_epoch
        await world.lease(worker, "run-1")
        (binding,) = (await anext(world.service.view("proxy-1"))).bindings
        measured = prover.kind == "x509pop"
        assert (binding.facts.artifact_digest_sha256 is not None) is measured
        assert (binding.facts.image_digest_sha256 is not None) is measured
        assert binding.facts.binding_level == ("enforced" if measured else "observed")
