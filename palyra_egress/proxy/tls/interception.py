"""The certificates the proxy shows to workers, and how it verifies the servers behind it.

A root CA (EC P-256, ten years, see `root_files`) signs an intermediate that lives only in
memory, for two days at most, path length 0; the intermediate signs leaves, one per judged host, for
one day, with a key of their own that is neither CA's. Leaves are minted after the CONNECT was
allowed and never before, and kept in a bounded cache together with their TLS context. Upstream, TLS
1.2 or newer is verified for exactly the judged host, against the pinned bundle or what its rule
names (`server_tls`).
Sources: RFC 5280, RFC 9525.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from palyra_egress.proxy.tls.root_files import (
    CA_KEY_USAGE,
    CLOCK_SKEW,
    AuthorityError,
    Issuer,
    RootFiles,
    Roots,
    RootStamps,
)
from palyra_egress.request import CanonicalHost
from palyra_fleet.private_files import replace

INTERMEDIATE_LIFE = timedelta(days=2)
LEAF_LIFE = timedelta(days=1)
MAX_LEAVES = 2048
HTTP1_ALPN = b"http/1.1"
HTTP2_ALPN = b"h2"
X509_CHECK_FLAG_NEVER_CHECK_SUBJECT = 0x20  # openssl/x509v3.h; a common name names no host


@dataclass(frozen=True, slots=True, repr=False)
class _Leaf:
    context: SSL.Context
    renew_at: datetime


class InterceptionAuthority:
    """Mints what workers see. Give it `now` as an aware datetime; it reads no clock. `stamps` are
    those of the files from before `roots` were read; without them the first look reads again."""

    def __init__(self, files: RootFiles, roots: Roots, stamps: RootStamps | None = None) -> None:
        self._files = files
        self._stamps = stamps
        self._roots = roots
        self._extra_roots = b""
        self._intermediate: Issuer | None = None
        self._problem: str | None = None
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._leaves: OrderedDict[CanonicalHost, _Leaf] = OrderedDict()

    @classmethod
    def load_or_create(cls, directory: Path, now: datetime) -> Self:
        """Read the roots from `directory`, or make the first there. Raises AuthorityError."""
        files = RootFiles.make(directory)
        files.load_or_create(now)
        stamps = files.stamps()
        authority = cls(files, files.load(), stamps)
        if not authority.root_path.exists():
            authority.write_bundle()
        return authority

    def read_again(self) -> Roots | None:
        """The roots, if their files have changed; for a thread. What cannot be read changes
        nothing, is tried again at the next look, and `problem` says so."""
        found = self._files.stamps()
        if found == self._stamps:
            return None
        try:
            roots = self._files.load()
        except (AuthorityError, OSError) as error:
            self._problem = str(error)
            return None
        self._problem = None
        self._stamps = found
        return roots

    def use(self, roots: Roots) -> None:
        """Sign with these roots from the next handshake on; what is open goes on."""
        if roots.signing.certificate != self._roots.signing.certificate:
            self._intermediate = None
            self._leaves.clear()
        self._roots = roots
        self.write_bundle(self._extra_roots)

    @property
    def root_path(self) -> Path:
        """Our trusted roots alone, for clients that add to the system's roots."""
        return self._files.directory / "worker-roots.pem"

    @property
    def bundle_path(self) -> Path:
        """The system's roots and ours, for clients that replace them."""
        return self._files.directory / "bundle.pem"

    def write_bundle(self, extra_roots: bytes = b"") -> Path:
        """Write what workers use: our trusted roots alone, and the bundle of public roots,
        `extra_roots` (PEM), and ours."""
        self._extra_roots = extra_roots
        ours = b"".join(
            root.public_bytes(serialization.Encoding.PEM) for root in self._roots.trusted
        )
        public = Path(certifi.where()).read_bytes()
        _publish(self.root_path, ours)
        return _publish(self.bundle_path, public + b"\n" + extra_roots + b"\n" + ours)

    def has_leaf(self, host: CanonicalHost) -> bool:
        """Whether the next handshake for this host takes no signature of ours."""
        return host in self._leaves

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
        return self._roots.signing.certificate.fingerprint(hashes.SHA256())

    def problem(self, now: datetime) -> str | None:
        """Why nothing can be signed, or the files as they are now are not used; or None."""
        if self._problem is not None:
            return self._problem
        end = self._roots.signing.certificate.not_valid_after_utc
        return None if now < end else f"the root certificate ended on {end:%Y-%m-%d}"

    def ends(self) -> dict[str, float]:
        """When root and intermediate end, in Unix seconds."""
        held = {"root": self._roots.signing, "intermediate": self._intermediate}
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

    def _current_intermediate(self, now: datetime) -> Issuer:
        held = self._intermediate
        if held is not None and held.certificate.not_valid_after_utc - now > LEAF_LIFE:
            return held
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("Palyra Egress Intermediate")
        certificate = (
            _builder(subject, key.public_key(), self._roots.signing, now, INTERMEDIATE_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(CA_KEY_USAGE, critical=True)
            .sign(self._roots.signing.key, hashes.SHA256())
        )
        self._intermediate = Issuer(certificate, key)
        return self._intermediate


def upstream_connection(
    host: CanonicalHost, context: SSL.Context, protocols: Sequence[bytes] = (HTTP1_ALPN,)
) -> SSL.Connection:
    """The TLS client side towards the judged host: verified name, by what the context trusts, one
    of these protocols (RFC 7301), the first rather than the others."""
    connection = SSL.Connection(context)
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


def client_context() -> SSL.Context:
    """A context towards servers that trusts nobody yet: TLS 1.2 or newer, verified, nothing
    resumed."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_verify(SSL.VERIFY_PEER)
    return context


def _choose_alpn(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    for ours in (HTTP2_ALPN, HTTP1_ALPN):
        if ours in offered:
            return ours
    return SSL.NO_OVERLAPPING_PROTOCOLS


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
    issuer: Issuer,
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


def _publish(path: Path, content: bytes) -> Path:
    """Replace a file that everybody may read in one step."""
    replace(path, content, 0o644)
    return path
