"""What the authority signs, field by field, and that others' verifiers agree."""

import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from palyra_fleet.identity.authority import (
    AuthorityRecord,
    FleetCertificateAuthority,
    IssuedLeaf,
    make_authority,
    retired,
)
from palyra_fleet.identity.certificate_profiles import checked_trust_domain
from palyra_fleet.wire.sealing import MasterKey, SealBroken
from tests.fakes.hostile_certificates import new_key
from tests.fakes.identity_world import MASTER
from tests.fakes.pairing_device import csr_pem

DEVICE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
NOW = 1_800_000_000_000
AT = datetime.fromtimestamp(NOW / 1000, UTC)
DAY = timedelta(hours=24)


def _authority(*records: AuthorityRecord) -> FleetCertificateAuthority:
    return FleetCertificateAuthority(
        records or (make_authority(MASTER, NOW),), MASTER, "palyra.internal"
    )


def _load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _leaf(authority: FleetCertificateAuthority, csr: str | None = None) -> IssuedLeaf:
    leaf = authority.sign_request(csr or csr_pem(new_key()), DEVICE, NOW)
    assert leaf is not None
    return leaf


def test_the_root_may_sign_leaves_and_nothing_else() -> None:
    root = _authority().trusted[0]
    assert root.subject == root.issuer
    assert root.subject.rfc4514_string() == "CN=Palyra Gateway CA"
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign) == (True, True)
    assert not usage.value.digital_signature
    assert root.not_valid_before_utc == AT - timedelta(minutes=1)
    assert root.not_valid_after_utc == AT + timedelta(days=3650)


def test_a_devices_leaf_is_exactly_as_published() -> None:
    authority, key = _authority(), new_key()
    leaf = _load(_leaf(authority, csr_pem(key)).certificate_pem)
    assert leaf.public_key() == key.public_key()
    names = {a.oid: a.value for a in leaf.subject}
    assert names == {
        NameOID.COMMON_NAME: f"Palyra Device {DEVICE}",
        NameOID.ORGANIZATION_NAME: "Palyra",
    }
    extensions = {e.oid._name: (e.critical, e.value) for e in leaf.extensions}
    assert set(extensions) == {
        "basicConstraints", "keyUsage", "subjectKeyIdentifier", "authorityKeyIdentifier",
        "subjectAltName", "extendedKeyUsage",
    }  # fmt: skip
    uri = x509.UniformResourceIdentifier(f"spiffe://palyra.internal/device/{DEVICE}")
    assert list(extensions["subjectAltName"][1]) == [uri]  # type: ignore[call-overload]
    assert extensions["basicConstraints"] == (True, x509.BasicConstraints(False, None))
    assert extensions["extendedKeyUsage"][1] == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    root = authority.trusted[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == root.value.digest
    assert leaf.not_valid_before_utc == AT - timedelta(minutes=1)
    assert leaf.not_valid_after_utc == AT + DAY


def test_serial_numbers_are_random_and_long() -> None:
    authority = _authority()
    serials = {_load(_leaf(authority).certificate_pem).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert max(serials).bit_length() > 140


def test_nothing_of_a_request_but_its_key_is_taken_over() -> None:
    key = new_key()
    greedy = csr_pem(
        key,
        "Palyra Gateway CA",
        (
            x509.BasicConstraints(True, None),
            x509.SubjectAlternativeName([x509.DNSName("localhost")]),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        ),
    )
    authority = _authority()
    modest, wanted = (
        _load(_leaf(authority, csr).certificate_pem) for csr in (csr_pem(key), greedy)
    )
    assert wanted.subject == modest.subject
    assert [(e.oid, e.critical, e.value) for e in wanted.extensions] == [
        (e.oid, e.critical, e.value) for e in modest.extensions
    ]


def test_a_request_somebody_else_signed_gets_nothing() -> None:
    honest, thief = csr_pem(new_key()), new_key()
    request = x509.load_pem_x509_csr(honest.encode())
    der = request.public_bytes(serialization.Encoding.DER)
    ours = thief.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    theirs = request.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    stolen = x509.load_der_x509_csr(der.replace(theirs, ours))
    pem = stolen.public_bytes(serialization.Encoding.PEM).decode()
    assert stolen.public_key() == thief.public_key()
    assert _authority().sign_request(pem, DEVICE, NOW) is None


def test_a_leaf_never_outlives_its_authority() -> None:
    authority = _authority()
    late = NOW + int(timedelta(days=3650).total_seconds() * 1000) - 60_000
    leaf = authority.sign_request(csr_pem(new_key()), DEVICE, late)
    assert leaf is not None
    assert _load(leaf.certificate_pem).not_valid_after_utc == AT + timedelta(days=3650)


def test_the_servers_certificate_has_the_names_clients_use() -> None:
    authority = _authority()
    server = authority.make_server_identity(["nodes.example", "192.0.2.7", "localhost"], NOW)
    leaf = _load(server.certificate_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "localhost", "palyrad-node-rpc", "nodes.example",
    ]  # fmt: skip
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    verifier = PolicyBuilder().store(Store(list(authority.trusted))).time(AT)
    verifier.build_server_verifier(x509.DNSName("palyrad-node-rpc")).verify(leaf, [])
    life = server.expires_at_unix_ms - NOW
    assert server.renew_at_unix_ms == NOW + life * 2 // 3
    assert "PRIVATE" not in repr(server)


def test_cryptographys_verifier_takes_the_leaf() -> None:
    authority = _authority()
    leaf = _load(_leaf(authority).certificate_pem)
    verifier = PolicyBuilder().store(Store(list(authority.trusted))).time(AT)
    found = verifier.build_client_verifier().verify(leaf, [])
    assert found.chain == [leaf, authority.trusted[0]]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_openssl_takes_leaf_and_server_and_refuses_the_leaf_as_a_server(tmp_path: Path) -> None:
    authority = _authority()
    (tmp_path / "ca.pem").write_text(authority.trust_bundle_pem)
    (tmp_path / "leaf.pem").write_text(_leaf(authority).certificate_pem)
    server = authority.make_server_identity([], NOW)
    (tmp_path / "server.pem").write_text(server.certificate_pem)

    def verify(file: str, purpose: str) -> bool:
        return (
            subprocess.run(
                ["openssl", "verify", "-x509_strict", "-attime", str(NOW // 1000), "-purpose",
                 purpose, "-CAfile", "ca.pem", file],
                cwd=tmp_path, capture_output=True, check=False,
            ).returncode
            == 0
        )  # fmt: skip

    assert verify("leaf.pem", "sslclient")
    assert verify("server.pem", "sslserver")
    assert not verify("leaf.pem", "sslserver")
    assert not verify("server.pem", "sslclient")


def test_during_an_overlap_the_new_root_signs_devices_and_the_old_one_our_listeners() -> None:
    old, new = make_authority(MASTER, NOW), make_authority(MASTER, NOW + 1)
    before, after = _authority(old), _authority(old, new)
    leaf = _leaf(after)
    assert leaf.authority_id == new.authority_id
    server = after.make_server_identity([], NOW)
    assert server.authority_id == old.authority_id
    verifier = PolicyBuilder().store(Store(list(before.trusted))).time(AT)
    verifier.build_server_verifier(x509.DNSName("localhost")).verify(
        _load(server.certificate_pem), []
    )
    assert after.trust_bundle_pem.count("BEGIN CERTIFICATE") == 2
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=after.trust_bundle_pem)
    assert len(context.get_ca_certs()) == 2
    alone = _authority(retired(old, NOW + 2), new)
    assert alone.make_server_identity([], NOW).authority_id == new.authority_id
    assert alone.trust_bundle_pem.count("BEGIN CERTIFICATE") == 1


def test_a_key_opens_only_under_its_master_and_its_name() -> None:
    record, other = make_authority(MASTER, NOW), make_authority(MASTER, NOW)
    with pytest.raises(SealBroken, match="another master key"):
        FleetCertificateAuthority([record], MasterKey.generate(), "palyra.internal")
    swapped = AuthorityRecord(
        record.authority_id, record.certificate_der, other.sealed_key, NOW, None
    )
    with pytest.raises(SealBroken, match="another record's"):
        _authority(swapped)
    renamed = AuthorityRecord(
        other.authority_id, record.certificate_der, other.sealed_key, NOW, None
    )
    with pytest.raises(SealBroken, match="not this certificate's key"):
        _authority(renamed)


def test_a_retired_authority_has_no_key_left_and_none_is_no_authority() -> None:
    gone = retired(make_authority(MASTER, NOW), NOW)
    assert gone.sealed_key == b""
    with pytest.raises(ValueError, match="no authority"):
        _authority(gone)


def test_nothing_shows_a_key() -> None:
    record = make_authority(MASTER, NOW)
    authority = _authority(record)
    shown = repr((record, authority, authority.__dict__))
    assert "ECPrivateKey" not in shown
    assert repr(record.sealed_key) not in shown


@pytest.mark.parametrize("domain", ["", "Palyra", "a/b", "a b", "-a", "a" * 256, "ä"])
def test_a_trust_domain_no_identity_may_carry_is_refused(domain: str) -> None:
    with pytest.raises(ValueError, match="trust domain"):
        checked_trust_domain(domain)
