"""The certificates the proxy shows to workers, and how it verifies the servers behind it.

A root CA (EC P-256, ten years, its key in a 0600 file) signs an intermediate that lives only in
memory, for two days at most, path length 0; the intermediate signs leaves, one per judged host, for
one day, with a key of their own that is neither CA's. Leaves are minted after the CONNECT was
allowed and never before, and kept in a bounded cache together with their TLS context. Upstream, TLS
1.2 or newer is verified against one pinned bundle, for exactly the judged host.
Sources: RFC 5280, RFC 9525.
"""

import ipaddress
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from palyra_egress.errors import OperatorMustAct
from palyra_egress.request import CanonicalHost

ROOT_LIFE = timedelta(days=3650)
INTERMEDIATE_LIFE = timedelta(days=2)
LEAF_LIFE = timedelta(days=1)
CLOCK_SKEW = timedelta(minutes=5)
MAX_LEAVES = 2048
HTTP1_ALPN = b"http/1.1"
HTTP2_ALPN = b"h2"
X509_CHECK_FLAG_NEVER_CHECK_SUBJECT = 0x20  # openssl/x509v3.h; a common name names no host


class AuthorityError(OperatorMustAct):
    """The CA files are missing a half, unreadable, or too open; the operator must act."""


@dataclass(frozen=True, slots=True, repr=False)
class _Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, repr=False)
class _Leaf:
    context: SSL.Context
    renew_at: datetime


class InterceptionAuthority:
    """Mints what workers see. Give it `now` as an aware datetime; it reads no clock."""

    def __init__(self, directory: Path, root: _Issuer) -> None:
        self._directory = directory
        self._root = root
        self._intermediate: _Issuer | None = None
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaves: OrderedDict[CanonicalHost, _Leaf] = OrderedDict()

    @classmethod
    def load_or_create(cls, directory: Path, now: datetime) -> Self:
        """Read the root CA from `directory`, or make it there. Raises AuthorityError."""
        key_path, certificate_path = directory / "root-key.pem", directory / "root.pem"
        if key_path.exists() != certificate_path.exists():
            raise AuthorityError(
                f"{directory}: root-key.pem and root.pem must both be there or both be missing;"
                " restore the missing one from a backup"
            )
        if not key_path.exists():
            _create_root(key_path, certificate_path, now)
        if key_path.stat().st_mode & 0o077:
            raise AuthorityError(f"{key_path}: is readable by others; expected mode 600")
        try:
            key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except ValueError as error:
            raise AuthorityError(f"{directory}: the root CA files are damaged") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"{key_path}: expected an EC key")
        if key.public_key() != certificate.public_key():
            raise AuthorityError(f"{directory}: root-key.pem is not the key of root.pem")
        return cls(directory, _Issuer(certificate, key))

    @property
    def root_path(self) -> Path:
        """The root certificate alone, for clients that add to the system's roots."""
        return self._directory / "root.pem"

    @property
    def bundle_path(self) -> Path:
        """The system's roots and ours, for clients that replace them."""
        return self._directory / "bundle.pem"

    def write_bundle(self, extra_roots: bytes = b"") -> Path:
        """Write the bundle that workers use: public roots, `extra_roots` (PEM), and our root."""
        roots = Path(certifi.where()).read_bytes()
        ours = self._root.certificate.public_bytes(serialization.Encoding.PEM)
        temporary = self.bundle_path.with_suffix(".new")
        temporary.write_bytes(roots + b"\n" + extra_roots + b"\n" + ours)
        temporary.chmod(0o644)
        return temporary.replace(self.bundle_path)

    def server_connection(self, host: CanonicalHost, now: datetime) -> SSL.Connection:
        """The TLS server side towards a worker, with a leaf for `host`."""
        leaf = self._leaves.get(host)
        if leaf is None or leaf.renew_at <= now:
            leaf = self._mint(host, now)
            self._leaves[host] = leaf
            while len(self._leaves) > MAX_LEAVES:
                self._leaves.popitem(last=False)
        self._leaves.move_to_end(host)
        connection = SSL.Connection(leaf.context)
        connection.set_accept_state()
        return connection

    @property
    def root_fingerprint(self) -> bytes:
        """SHA-256 of the root that signs now."""
        return self._root.certificate.fingerprint(hashes.SHA256())

    def problem(self, now: datetime) -> str | None:
        """Why nothing can be signed any more, or None."""
        end = self._root.certificate.not_valid_after_utc
        return None if now < end else f"the root certificate ended on {end:%Y-%m-%d}"

    def ends(self) -> dict[str, float]:
        """When root and intermediate end, in Unix seconds."""
        held = {"root": self._root, "intermediate": self._intermediate}
        return {
            name: issuer.certificate.not_valid_after_utc.timestamp()
            for name, issuer in held.items()
            if issuer is not None
        }

    def issue(
        self, hosts: Sequence[CanonicalHost], key: ec.EllipticCurvePublicKey, now: datetime
    ) -> tuple[x509.Certificate, x509.Certificate]:
        """A leaf for these names, and the intermediate that signed it."""
        issuer = self._current_intermediate(now)
        names = [_alternative_name(host) for host in hosts]
        certificate = (
            _builder(_name("Palyra worker view"), key, issuer, now, LEAF_LIFE)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )
        return certificate, issuer.certificate

    def _mint(self, host: CanonicalHost, now: datetime) -> _Leaf:
        certificate, intermediate = self.issue([host], self._leaf_key.public_key(), now)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_certificate(certificate)
        context.add_extra_chain_cert(intermediate)
        context.use_privatekey(self._leaf_key)
        context.set_alpn_select_callback(_choose_alpn)
        return _Leaf(context, now + LEAF_LIFE / 2)

    def _current_intermediate(self, now: datetime) -> _Issuer:
        held = self._intermediate
        if held is not None and held.certificate.not_valid_after_utc - now > LEAF_LIFE:
            return held
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("Palyra Egress Intermediate")
        certificate = (
            _builder(subject, key.public_key(), self._root, now, INTERMEDIATE_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(CA_KEY_USAGE, critical=True)
            .sign(self._root.key, hashes.SHA256())
        )
        self._intermediate = _Issuer(certificate, key)
        return self._intermediate


def upstream_connection(
    host: CanonicalHost, trusted_bundle: Path, protocols: Sequence[bytes] = (HTTP1_ALPN,)
) -> SSL.Connection:
    """The TLS client side towards the judged host: verified name, TLS 1.2 or newer, one of these
    protocols (RFC 7301), the first rather than the others."""
    connection = SSL.Connection(_upstream_context(trusted_bundle))
    parameters = SSL._lib.SSL_get0_param(connection._ssl)  # type: ignore[attr-defined]
    SSL._lib.X509_VERIFY_PARAM_set_hostflags(  # type: ignore[attr-defined]
        parameters,
        SSL._lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS  # type: ignore[attr-defined]
        | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
    )
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        name = host.encode("ascii")
        connection.set_tlsext_host_name(name)
        done = SSL._lib.X509_VERIFY_PARAM_set1_host(  # type: ignore[attr-defined]
            parameters, name, len(name)
        )
    else:
        done = SSL._lib.X509_VERIFY_PARAM_set1_ip(  # type: ignore[attr-defined]
            parameters, packed, len(packed)
        )
    if done != 1:
        raise AuthorityError("the name to verify could not be set")
    connection.set_alpn_protos(list(protocols))
    connection.set_connect_state()
    return connection


_contexts: dict[tuple[Path, float], SSL.Context] = {}


def _upstream_context(trusted_bundle: Path) -> SSL.Context:
    """One context per bundle and its modification time, so that a replaced bundle is noticed."""
    key = (trusted_bundle, trusted_bundle.stat().st_mtime)
    context = _contexts.get(key)
    if context is None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.load_verify_locations(str(trusted_bundle))
        context.set_verify(SSL.VERIFY_PEER)
        _contexts.clear()
        _contexts[key] = context
    return context


def _choose_alpn(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    for ours in (HTTP2_ALPN, HTTP1_ALPN):
        if ours in offered:
            return ours
    return SSL.NO_OVERLAPPING_PROTOCOLS


CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Palyra"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _alternative_name(host: CanonicalHost) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: _Issuer,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + life, issuer.certificate.not_valid_after_utc))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )


def _create_root(key_path: Path, certificate_path: Path, now: datetime) -> None:
    key_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("Palyra Egress Root")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now.astimezone(UTC) + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(CA_KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for path, content, mode in (
        (key_path, pem, 0o600),
        (certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
