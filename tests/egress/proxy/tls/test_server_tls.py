"""Mirror of proxy/server_tls.py, server_tls_gate.py, tls_material.py: settings, files, answers."""

import contextlib
import os
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from palyra_egress.clock import now_utc
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.errors import OperatorMustAct
from palyra_egress.policy.load import read_files
from palyra_egress.proxy.tls.interception import upstream_connection
from palyra_egress.proxy.tls.server_tls import (
    ServerTls,
    ServerTlsSettings,
    ServerTlsStore,
    server_tls_settings,
)
from palyra_egress.proxy.tls.server_tls_gate import ServerTlsGate
from palyra_egress.proxy.tls.tls_material import (
    CertificateFiles,
    MaterialDamaged,
    MaterialGone,
    read_client_certificate,
    read_roots,
)
from palyra_egress.request import CanonicalHost
from palyra_egress.verdict import USUAL_TLS, UpstreamTls
from tests.egress.policy.policy_text import rules
from tests.fakes.client_certificates import (
    common_name,
    demanding,
    issue_client,
    key_pem,
    replace_file,
)
from tests.fakes.process_limits import without_descriptors


def with_an_extension_twice() -> bytes:
    """A root that loads, and whose extensions cannot be read."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "twice")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now_utc()).not_valid_after(now_utc() + timedelta(days=1))
    for number in ("1.2.3.4", "1.2.3.5"):
        odd = x509.UnrecognizedExtension(x509.ObjectIdentifier(number), b"odd")
        builder = builder.add_extension(odd, critical=False)
    made = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    twice = made.replace(b"\x06\x03\x2a\x03\x05", b"\x06\x03\x2a\x03\x04")
    assert twice != made
    found = x509.load_der_x509_certificate(twice)
    return found.public_bytes(serialization.Encoding.PEM)


def test_roots_that_are_not_as_they_should_be_are_damaged(tmp_path: Path) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_bytes(with_an_extension_twice())
    with pytest.raises(MaterialDamaged, match="RFC 5280"):
        read_roots(odd)


# --- settings -------------------------------------------------------------------------------------


def test_names_stand_for_files() -> None:
    made = server_tls_settings(["corp=/a/b=c.pem"], ["agent=/a.pem,/a.key", "both=/b.pem"])
    assert made.roots == {"corp": Path("/a/b=c.pem")}
    assert made.client_certificates == {
        "agent": CertificateFiles(Path("/a.pem"), Path("/a.key")),
        "both": CertificateFiles(Path("/b.pem"), Path("/b.pem")),
    }


REFUSED = [
    (["corp"], [], "expected NAME=FILE"),
    (["corp="], [], "expected NAME=FILE"),
    (["=x.pem"], [], "the name '' is none"),
    (["a/b=x.pem"], [], "the name 'a/b' is none"),
    (["a=x.pem", "a=y.pem"], [], "'a' is given already"),
    ([], ["a=x.pem", "a=y.pem"], "'a' is given already"),
    ([], ["a=x,y,z"], "no commas in the paths"),
    ([], ["a=x,"], "expected NAME=CERTIFICATE,KEY"),
]


@pytest.mark.parametrize(("roots", "shown", "told"), REFUSED)
def test_a_flag_that_says_too_little_or_too_much_is_refused(
    roots: list[str], shown: list[str], told: str
) -> None:
    with pytest.raises(OperatorMustAct) as refused:
        server_tls_settings(roots, shown)
    assert told in str(refused.value)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def ca(tmp_path: Path) -> UpstreamCa:
    return UpstreamCa.create(tmp_path / "ca")


def test_roots_are_cas_and_one_at_least_ends_a_chain(ca: UpstreamCa, tmp_path: Path) -> None:
    assert read_roots(ca.ca_file) == (ca.certificate,)
    leaf = ca.issue("a.example")
    with pytest.raises(MaterialDamaged, match=r"CN=a\.example is no CA"):
        read_roots(leaf)
    for content in (b"", b"no PEM", ca.ca_file.read_bytes()[:-60]):
        (tmp_path / "bad.pem").write_bytes(content)
        with pytest.raises(MaterialDamaged, match="no PEM certificates"):
            read_roots(tmp_path / "bad.pem")
    with pytest.raises(MaterialGone, match="cannot be read"):
        read_roots(tmp_path / "missing.pem")
    with pytest.raises(MaterialGone, match="is not a regular file"):
        read_roots(tmp_path)


def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MaterialGone, match="not a regular file"):
        read_roots(tmp_path / "pipe")


def test_certificate_and_key_may_lie_in_one_file_or_in_two(ca: UpstreamCa, tmp_path: Path) -> None:
    files = issue_client(ca, "agent", tmp_path)
    two = read_client_certificate(files)
    one = tmp_path / "one.pem"
    replace_file(one, files.key.read_bytes() + files.certificate.read_bytes())
    assert read_client_certificate(CertificateFiles(one, one)).chain == two.chain


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_key_that_others_can_reach_is_not_used(ca: UpstreamCa, tmp_path: Path, mode: int) -> None:
    files = issue_client(ca, "agent", tmp_path)
    files.key.chmod(mode)
    with pytest.raises(MaterialGone, match=f"mode {mode:o} (is too open for a key|lets others)"):
        read_client_certificate(files)
    files.key.chmod(0o600)
    files.certificate.chmod(0o644)
    assert read_client_certificate(files).chain, "a certificate is no secret"


def _pem(key: object) -> bytes:
    return key.private_bytes(  # type: ignore[attr-defined,no-any-return]
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


KEYS = {
    "another key": (key_pem(ec.generate_private_key(ec.SECP256R1())), "not the key of the first"),
    "a password": (
        key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"),
        "the key has a password",
    ),
    "another kind": (_pem(dsa.generate_private_key(1024)), "of a kind that TLS does not use"),
    "RSA of somebody else": (_pem(rsa.generate_private_key(65537, 2048)), "not the key of"),
    "nothing": (b"", "no PEM key"),
}


@pytest.mark.parametrize(("content", "told"), KEYS.values(), ids=KEYS)
def test_a_key_that_cannot_be_used_is_told_without_a_word_of_it(
    ca: UpstreamCa, tmp_path: Path, content: bytes, told: str
) -> None:
    files = issue_client(ca, "agent", tmp_path)
    replace_file(files.key, content)
    with pytest.raises(MaterialDamaged, match=told) as refused:
        read_client_certificate(files)
    assert str(refused.value).startswith(f"{files.key}: ")
    assert not any(
        line in str(refused.value).encode() for line in content.splitlines() if len(line) > 20
    )


def test_a_key_that_tls_does_not_take_is_noticed_when_it_is_read(
    ca: UpstreamCa, tmp_path: Path
) -> None:
    files = issue_client(ca, "weak", tmp_path, key=rsa.generate_private_key(65537, 1024))
    with pytest.raises(MaterialDamaged, match=r"TLS does not take it: .*key too small"):
        read_client_certificate(files)


def test_a_root_is_needed_and_not_only_what_another_ca_signed(tmp_path: Path) -> None:
    root, key = UpstreamCa.create(tmp_path / "root"), ec.generate_private_key(ec.SECP256R1())
    now = now_utc()
    below = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "below")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root.key, hashes.SHA256())
    )
    pem = below.public_bytes(serialization.Encoding.PEM)
    replace_file(tmp_path / "below.pem", pem)
    with pytest.raises(MaterialDamaged, match="no certificate is self-signed"):
        read_roots(tmp_path / "below.pem")
    replace_file(tmp_path / "both.pem", pem + root.ca_file.read_bytes())
    assert len(read_roots(tmp_path / "both.pem")) == 2


# --- the store ------------------------------------------------------------------------------------


def _store(ca: UpstreamCa, tmp_path: Path) -> tuple[ServerTlsStore, CertificateFiles]:
    files = issue_client(ca, "agent", tmp_path)
    settings = ServerTlsSettings({"corp": ca.ca_file}, {"agent": files})
    return ServerTlsStore(settings, ca.ca_file, now_utc), files


def test_one_way_is_one_object_until_its_files_change(ca: UpstreamCa, tmp_path: Path) -> None:
    store, _ = _store(ca, tmp_path)
    names = UpstreamTls("corp", "agent")
    first = store.find(names)
    assert first is not None and store.find(names) is first
    assert store.find(USUAL_TLS) is store.find(USUAL_TLS) is not None
    issue_client(ca, "agent", tmp_path)
    assert store.find(names) is first, "nothing was read yet"
    store.read_again()
    second = store.find(names)
    assert second is not None and second is not first
    assert second != first and second.context() is not first.context()
    assert store.find(UpstreamTls("corp")) is store.find(UpstreamTls("corp"))


@pytest.mark.parametrize(
    "names",
    [
        UpstreamTls("other"),
        UpstreamTls(None, "other"),
        UpstreamTls("agent"),
        UpstreamTls(None, "corp"),
        UpstreamTls("corp", "other"),
        UpstreamTls("other", "agent"),
        UpstreamTls("", None),
        UpstreamTls(None, ""),
    ],
    ids=str,
)
def test_a_name_that_is_not_set_up_is_no_way_at_all(
    ca: UpstreamCa, tmp_path: Path, names: UpstreamTls
) -> None:
    assert _store(ca, tmp_path)[0].find(names) is None


@pytest.mark.parametrize(("days", "told"), [(-1, "ended on"), (1, "begins on")])
def test_a_certificate_out_of_its_time_is_shown_to_nobody(
    ca: UpstreamCa, tmp_path: Path, days: int, told: str
) -> None:
    files = issue_client(ca, "agent", tmp_path, days=1)
    late, early = now_utc() + timedelta(days=2), now_utc() - timedelta(days=3)
    store = ServerTlsStore(
        ServerTlsSettings({}, {"agent": files}), ca.ca_file, lambda: late if days < 0 else early
    )
    assert store.find(UpstreamTls(None, "agent")) is None
    assert told in (store.problem or "")


def test_a_certificate_ends_while_it_is_held(ca: UpstreamCa, tmp_path: Path) -> None:
    now = [now_utc()]
    files = issue_client(ca, "agent", tmp_path, days=1)
    store = ServerTlsStore(ServerTlsSettings({}, {"agent": files}), ca.ca_file, lambda: now[0])
    assert store.find(UpstreamTls(None, "agent")) is not None
    now[0] += timedelta(days=2)
    assert store.find(UpstreamTls(None, "agent")) is None


def test_damaged_roots_change_nothing_and_missing_ones_are_gone(
    ca: UpstreamCa, tmp_path: Path
) -> None:
    store, _ = _store(ca, tmp_path)
    before = store.find(UpstreamTls("corp"))
    content = ca.ca_file.read_bytes()
    replace_file(ca.ca_file, content[:100])
    store.read_again()
    assert store.find(UpstreamTls("corp")) is before
    assert "no PEM certificates" in (store.problem or "")
    ca.ca_file.unlink()
    store.read_again()
    assert store.find(UpstreamTls("corp")) is None
    replace_file(ca.ca_file, content)
    store.read_again()
    assert store.find(UpstreamTls("corp")) is not None
    assert store.problem is None


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_roots_that_others_may_write_are_gone_until_they_are_ours_alone(
    ca: UpstreamCa, tmp_path: Path, mode: int
) -> None:
    store, _ = _store(ca, tmp_path)
    ca.ca_file.chmod(mode)
    store.read_again()
    assert store.find(UpstreamTls("corp")) is None and store.find(USUAL_TLS) is None
    told = f"roots corp: {ca.ca_file}: mode {mode:o} lets others write to it; expected a file that"
    assert told in (store.problem or "")
    ca.ca_file.chmod(0o644)
    store.read_again()
    assert store.find(UpstreamTls("corp")) is not None and store.problem is None


def test_roots_in_a_folder_that_others_may_write_are_gone(ca: UpstreamCa, tmp_path: Path) -> None:
    """Nothing of the file itself has changed."""
    store, _ = _store(ca, tmp_path)
    ca.ca_file.parent.chmod(0o777)
    store.read_again()
    assert store.find(UpstreamTls("corp")) is None
    assert f"the folder {ca.ca_file.parent} has mode 777" in (store.problem or "")
    ca.ca_file.parent.chmod(0o755)
    store.read_again()
    assert store.find(UpstreamTls("corp")) is not None


def test_a_client_certificate_that_others_may_write_is_shown_to_nobody(
    ca: UpstreamCa, tmp_path: Path
) -> None:
    store, files = _store(ca, tmp_path)
    files.certificate.chmod(0o666)
    store.read_again()
    assert store.find(UpstreamTls(None, "agent")) is None
    assert f"client certificate agent: {files.certificate}: mode 666" in (store.problem or "")


def test_what_could_not_be_read_for_want_of_descriptors_is_read_when_there_are_some(
    ca: UpstreamCa, tmp_path: Path
) -> None:
    """Nothing changes in between: only the reading can find out."""
    store, files = _store(ca, tmp_path)
    replace_file(ca.ca_file, ca.ca_file.read_bytes())
    replace_file(files.key, files.key.read_bytes())
    names = UpstreamTls("corp", "agent")
    with without_descriptors():
        store.read_again()
    assert store.find(names) is None and "Too many open files" in (store.problem or "")
    store.read_again()
    assert store.find(names) is not None and store.problem is None


def test_a_context_speaks_tls_1_2_or_newer_and_verifies(ca: UpstreamCa, tmp_path: Path) -> None:
    store, _ = _store(ca, tmp_path)
    for names in (USUAL_TLS, UpstreamTls("corp", "agent")):
        way = store.find(names)
        assert way is not None
        assert way.context().get_verify_mode() == SSL.VERIFY_PEER
        assert "PRIVATE" not in repr(way) and "Certificate" not in repr(way).replace(
            "client_certificate", ""
        )


def _meet(context: ssl.SSLContext, way: ServerTls | None) -> ssl.SSLObject:
    """A server after its handshake with the proxy, in memory."""
    assert way is not None
    client = upstream_connection(CanonicalHost("a.example"), way.context())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (client, server):
            with contextlib.suppress(SSL.WantReadError, ssl.SSLWantReadError):
                side.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                to_server.write(client.bio_read(65536))
            if to_client.pending:
                client.bio_write(to_client.read())
    return server


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_is_shown_in_both_versions(
    ca: UpstreamCa, tmp_path: Path, newest: ssl.TLSVersion
) -> None:
    store, _ = _store(ca, tmp_path)
    context = demanding(ca.server_context("a.example"), ca)
    context.maximum_version = newest
    server = _meet(context, store.find(UpstreamTls("corp", "agent")))
    assert server.version() == newest.name.replace("_", ".")
    assert common_name(server.getpeercert()) == "agent"


def test_a_server_that_asks_inside_an_open_connection_gets_none(
    ca: UpstreamCa, tmp_path: Path
) -> None:
    store, _ = _store(ca, tmp_path)
    later = ca.server_context("a.example")
    later.post_handshake_auth = True
    server = _meet(later, store.find(UpstreamTls("corp", "agent")))
    assert server.version() == "TLSv1.3" and server.getpeercert() is None
    with pytest.raises(ssl.SSLError, match="EXTENSION_NOT_RECEIVED"):
        server.verify_client_post_handshake()


# --- the gate -------------------------------------------------------------------------------------


def test_each_unknown_name_is_told_with_its_place(tmp_path: Path) -> None:
    given = rules(
        "hosts: [a.example], upstream_tls: {roots: crop, client_certificate: agent}",
        "hosts: [b.example], upstream_tls: {roots: corp, client_certificate: agnet}",
        "hosts: [c.example], upstream_tls: {roots: agent}",
    )
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\nname: n\n")
    gate = ServerTlsGate(server_tls_settings(["corp=x"], ["agent=y"]))
    told = (gate.refusal(read_files(file, "p.yaml"), given) or "").splitlines()
    assert [line.split(": ", 1)[0] for line in told] == [
        "test.yaml:4:56",
        "test.yaml:5:82",
        "test.yaml:6:56",
    ]
    assert told[0].endswith("expected one of corp; did you mean 'corp'?")
    assert told[1].endswith("expected one of agent; did you mean 'agent'?")
    assert "which is not set up here (--upstream-roots)" in told[2]


def test_where_nothing_is_set_up_the_flag_is_named(tmp_path: Path) -> None:
    given = rules("hosts: [a.example], upstream_tls: {client_certificate: agent}")
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\nname: n\n")
    told = ServerTlsGate(server_tls_settings([], [])).refusal(read_files(file, "p.yaml"), given)
    assert (told or "").endswith("expected it to be set up: --client-certificate NAME=CERT,KEY")
    assert (
        ServerTlsGate(server_tls_settings([], ["agent=y"])).refusal(
            read_files(file, "p.yaml"), given
        )
        is None
    )
