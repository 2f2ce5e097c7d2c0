"""The certificates workers see, checked as X.509 and by a real TLS client; and upstream checks."""

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from palyra_egress.clock import now_utc
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.tls import interception
from palyra_egress.proxy.tls.interception import (
    INTERMEDIATE_LIFE,
    LEAF_LIFE,
    AuthorityError,
    InterceptionAuthority,
    upstream_connection,
)
from palyra_egress.proxy.tls.server_tls import NOTHING_NAMED, ServerTls, ServerTlsStore
from palyra_egress.proxy.tls.tls_material import read_bundle
from palyra_egress.request import CanonicalHost
from palyra_egress.verdict import USUAL_TLS
from palyra_fleet.private_files import replace

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
HOST = CanonicalHost("api.example")


def trusting(bundle: Path) -> SSL.Context:
    """How servers are met where no rule says anything."""
    return ServerTls(USUAL_TLS, read_bundle(bundle)).context()


@pytest.fixture
def authority(tmp_path: Path) -> InterceptionAuthority:
    return InterceptionAuthority.load_or_create(tmp_path / "ca", NOW)


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> None:
    """A TLS handshake in memory; raises SSL.Error when a side refuses."""
    for _ in range(10):
        done = 0
        for side, other in ((client, server), (server, client)):
            try:
                side.do_handshake()
                done += 1
            except SSL.WantReadError:
                pass
            try:
                while True:
                    other.bio_write(side.bio_read(65536))
            except SSL.WantReadError:
                pass
        if done == 2:
            return
    raise AssertionError("the handshake did not end")


def chain_for(authority: InterceptionAuthority, host: str, now: datetime = NOW):
    """Leaf and intermediate as a client receives them."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
    client.set_connect_state()
    shake_hands(client, authority.server_connection(CanonicalHost(host), now))
    leaf, intermediate = (c.to_cryptography() for c in client.get_peer_cert_chain())
    return leaf, intermediate


def extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def root_of(authority: InterceptionAuthority) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.root_path.read_bytes())


def test_the_chain_is_signed_from_the_root_down(authority):
    leaf, intermediate = chain_for(authority, HOST)
    intermediate.verify_directly_issued_by(root_of(authority))
    leaf.verify_directly_issued_by(intermediate)


def test_only_the_root_and_the_intermediate_are_cas_and_the_intermediate_ends_the_path(authority):
    leaf, intermediate = chain_for(authority, HOST)
    wanted = [(root_of(authority), True, 1), (intermediate, True, 0), (leaf, False, None)]
    for certificate, ca, path_length in wanted:
        constraints = extension(certificate, x509.BasicConstraints)
        assert constraints.critical
        assert (constraints.value.ca, constraints.value.path_length) == (ca, path_length)


def test_a_leaf_is_for_servers_only_and_for_its_one_host(authority):
    leaf, _ = chain_for(authority, HOST)
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("api.example")]


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_a_leaf_for_an_address_names_it_as_an_address(authority, host):
    leaf, _ = chain_for(authority, host)
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == [host]
    assert names.get_values_for_type(x509.DNSName) == []


def test_no_two_levels_share_a_key(authority):
    leaf, intermediate = chain_for(authority, HOST)
    keys = {
        certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for certificate in (root_of(authority), intermediate, leaf)
    }
    assert len(keys) == 3


def test_nothing_outlives_its_issuer(authority):
    for now in (NOW, NOW + timedelta(hours=30), NOW + timedelta(days=3649)):
        leaf, intermediate = chain_for(authority, HOST, now)
        assert leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc
        assert leaf.not_valid_after_utc <= intermediate.not_valid_after_utc
        assert intermediate.not_valid_after_utc <= root_of(authority).not_valid_after_utc
        assert leaf.not_valid_after_utc <= now + LEAF_LIFE
        assert intermediate.not_valid_after_utc <= now + INTERMEDIATE_LIFE


def test_a_leaf_is_kept_for_half_its_life_and_then_made_anew(authority):
    first, _ = chain_for(authority, HOST, NOW)
    again, _ = chain_for(authority, HOST, NOW + LEAF_LIFE / 2 - timedelta(seconds=1))
    later, _ = chain_for(authority, HOST, NOW + LEAF_LIFE / 2)
    assert first.serial_number == again.serial_number != later.serial_number


def test_the_cache_of_leaves_is_bounded_and_drops_the_least_used(authority, monkeypatch):
    monkeypatch.setattr(interception, "MAX_LEAVES", 2)
    first, _ = chain_for(authority, "a.example")
    chain_for(authority, "b.example")
    chain_for(authority, "a.example")
    chain_for(authority, "c.example")  # b goes
    assert len(authority._leaves) == 2
    assert chain_for(authority, "a.example")[0].serial_number == first.serial_number


def test_a_client_that_trusts_the_root_accepts_the_leaf_for_its_host_only(authority, tmp_path):
    authority = InterceptionAuthority.load_or_create(tmp_path / "now", now_utc())
    for name, accepted in (("api.example", True), ("other.example", False)):
        connection = upstream_connection(CanonicalHost(name), trusting(authority.root_path))
        server = authority.server_connection(HOST, now_utc())
        if accepted:
            shake_hands(connection, server)
        else:
            with pytest.raises(SSL.Error):
                shake_hands(connection, server)


# --- files ----------------------------------------------------------------------------------------


def test_the_root_key_is_for_its_owner_alone(authority, tmp_path):
    key = tmp_path / "ca" / "root-key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    key.chmod(0o640)
    with pytest.raises(AuthorityError, match="is too open"):
        InterceptionAuthority.load_or_create(tmp_path / "ca", NOW)


@pytest.mark.parametrize("missing", ["root-key.pem", "root.pem"])
def test_half_a_root_is_refused_and_never_replaced(authority, tmp_path, missing):
    (tmp_path / "ca" / missing).unlink()
    with pytest.raises(AuthorityError, match="both"):
        InterceptionAuthority.load_or_create(tmp_path / "ca", NOW)
    assert not (tmp_path / "ca" / missing).exists()


@pytest.mark.parametrize("damaged", ["root-key.pem", "root.pem"])
def test_a_damaged_root_is_refused(authority, tmp_path, damaged):
    (tmp_path / "ca" / damaged).write_text("-----BEGIN NOTHING-----\n")
    with pytest.raises(AuthorityError, match="damaged"):
        InterceptionAuthority.load_or_create(tmp_path / "ca", NOW)


def test_a_root_key_that_does_not_belong_to_the_certificate_is_refused(authority, tmp_path):
    InterceptionAuthority.load_or_create(tmp_path / "other", NOW)
    (tmp_path / "ca" / "root.pem").write_bytes((tmp_path / "other" / "root.pem").read_bytes())
    with pytest.raises(AuthorityError):
        InterceptionAuthority.load_or_create(tmp_path / "ca", NOW)


def test_the_root_survives_a_restart(authority, tmp_path):
    again = InterceptionAuthority.load_or_create(tmp_path / "ca", NOW + timedelta(days=1))
    assert root_of(again) == root_of(authority)


def test_the_bundle_holds_public_roots_the_extra_roots_and_ours(authority, tmp_path):
    extra = UpstreamCa.create(tmp_path / "extra").ca_file.read_bytes()
    bundle = authority.write_bundle(extra).read_bytes()
    assert extra in bundle
    assert authority.root_path.read_bytes() in bundle
    assert bundle.count(b"BEGIN CERTIFICATE") > 50
    assert b"PRIVATE" not in bundle


# --- the server behind ----------------------------------------------------------------------------


def _server(pem: Path, newest: int = SSL.TLS1_3_VERSION) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(newest)
    context.use_certificate_file(str(pem))
    context.use_privatekey_file(str(pem))
    server = SSL.Connection(context)
    server.set_accept_state()
    return server


def _issue(ca: UpstreamCa, *, common_name: str, san: list[str] | None, usage) -> Path:
    """A certificate of the CA with exactly these names and purpose."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = now_utc()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if san is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in san])
        builder = builder.add_extension(names, critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    certificate = builder.sign(ca.key, hashes.SHA256())
    path = ca.directory / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
SERVERS = [
    ("x", ["api.example"], SERVER, True),
    ("x", ["*.example"], SERVER, False),  # a wildcard for a whole top level
    ("x", ["other.example"], SERVER, False),
    ("x", ["a*.example"], SERVER, False),  # partial wildcard
    ("x", ["*.api.example"], SERVER, False),  # a wildcard is not its parent
    ("x", ["*"], SERVER, False),
    ("x", ["api.example"], CLIENT, False),  # not a server's certificate
    ("api.example", None, SERVER, False),  # RFC 9525: the common name names nobody
    ("api.example", ["other.example"], SERVER, False),
]


@pytest.mark.parametrize(("common_name", "san", "usage", "accepted"), SERVERS)
def test_a_server_is_accepted_only_for_its_own_name(tmp_path, common_name, san, usage, accepted):
    ca = UpstreamCa.create(tmp_path)
    pem = _issue(ca, common_name=common_name, san=san, usage=usage)
    client = upstream_connection(HOST, trusting(ca.ca_file))
    if accepted:
        shake_hands(client, _server(pem))
        assert client.get_servername() == b"api.example"
    else:
        with pytest.raises(SSL.Error):
            shake_hands(client, _server(pem))


def test_an_expired_server_is_refused(tmp_path):
    ca = UpstreamCa.create(tmp_path)
    pem = ca.issue("api.example", days=-1)
    with pytest.raises(SSL.Error):
        shake_hands(upstream_connection(HOST, trusting(ca.ca_file)), _server(pem))


def test_an_address_is_verified_as_an_address(tmp_path):
    ca = UpstreamCa.create(tmp_path)
    address = CanonicalHost("192.0.2.7")
    shake_hands(upstream_connection(address, trusting(ca.ca_file)), _server(ca.issue("192.0.2.7")))
    with pytest.raises(SSL.Error):
        shake_hands(
            upstream_connection(address, trusting(ca.ca_file)), _server(ca.issue("192.0.2.8"))
        )


def test_an_old_tls_version_is_not_spoken_to_a_server(tmp_path):
    ca = UpstreamCa.create(tmp_path)
    server = _server(ca.issue("api.example"), newest=SSL.TLS1_1_VERSION)
    with pytest.raises(SSL.Error):
        shake_hands(upstream_connection(HOST, trusting(ca.ca_file)), server)


def test_a_replaced_bundle_is_noticed(tmp_path):
    ca, other = UpstreamCa.create(tmp_path / "a"), UpstreamCa.create(tmp_path / "b")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(other.ca_file.read_bytes())
    pem = ca.issue("api.example")
    store = ServerTlsStore(NOTHING_NAMED, bundle, now_utc)
    with pytest.raises(SSL.Error):
        shake_hands(upstream_connection(HOST, _usual(store).context()), _server(pem))
    replace(bundle, ca.ca_file.read_bytes())
    store.read_again()
    shake_hands(upstream_connection(HOST, _usual(store).context()), _server(pem))


def _usual(store: ServerTlsStore) -> ServerTls:
    found = store.find(USUAL_TLS)
    assert found is not None
    return found


def test_the_names_of_the_standard_library_agree_on_the_chain(authority, tmp_path):
    """OpenSSL as Python configures it (strict checks) takes the chain too."""
    now = now_utc()
    fresh = InterceptionAuthority.load_or_create(tmp_path / "strict", now)
    context = ssl.create_default_context(cafile=str(fresh.root_path))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="api.example")
    server = fresh.server_connection(HOST, now)
    for _ in range(10):
        try:
            client.do_handshake()
            return
        except ssl.SSLWantReadError:
            server.bio_write(outgoing.read())
        with contextlib.suppress(SSL.WantReadError):
            server.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            incoming.write(server.bio_read(65536))
    raise AssertionError("the handshake did not end")
