"""Client certificates for tests, as files, and servers that demand them."""

import ssl
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from palyra_egress.clock import now_utc
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.tls.tls_material import CertificateFiles


def issue_client(
    ca: UpstreamCa,
    name: str,
    directory: Path,
    days: float = 1.0,
    called: str = "",
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> CertificateFiles:
    """A certificate that says who `name` is, and its key, in files `called` so (default `name`).
    Files that are there are replaced one after the other, as tools do it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = now_utc()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False
        )
        .sign(ca.key, hashes.SHA256())
    )
    directory.mkdir(parents=True, exist_ok=True)
    called = called or name
    files = CertificateFiles(directory / f"{called}.pem", directory / f"{called}.key")
    replace_file(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    replace_file(files.key, key_pem(key))
    return files


def key_pem(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None
) -> bytes:
    sealed = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file in place by rename, as tools that rotate do."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)


def demanding(context: ssl.SSLContext, clients: UpstreamCa) -> ssl.SSLContext:
    """The same server, to whom everybody must prove who they are by a certificate of this CA."""
    context.load_verify_locations(clients.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def common_name(peer: Mapping[str, object] | None) -> str | None:
    """Who a server saw, as `SSLSocket.getpeercert` tells it."""
    if not peer:
        return None
    subject: object = peer["subject"]
    assert isinstance(subject, tuple)
    return str(dict(field for part in subject for field in part)["commonName"])
