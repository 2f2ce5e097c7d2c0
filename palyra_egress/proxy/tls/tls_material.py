"""What rules name to meet servers, as it lies in files: roots, and client certificates with keys.

Roots are a PEM file of CA certificates, at least one of them self-signed (RFC 5280 section 6.1.1:
OpenSSL ends a chain at nothing else). A client certificate is a PEM file with the certificate, then
its intermediates, and its key there too or in a file of its own; the key must belong to it, be
readable by us or root only and have no password. Reading raises `MaterialGone` where a file is
missing or may not be used, and `MaterialDamaged` where what it holds makes no sense, as while two
files are being replaced. No text holds anything of a key. Blocking.
"""

import os
import stat
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from OpenSSL import SSL

MAX_PEM_BYTES: Final = 1024 * 1024
_TOO_OPEN: Final = 0o027
_PUBLIC_FORM: Final = (
    serialization.Encoding.DER,
    serialization.PublicFormat.SubjectPublicKeyInfo,
)
_ODD: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What looking into a certificate raises that is not as it should be."""

type ClientKey = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)


class MaterialGone(Exception):
    """A file is missing or may not be used: what it held is not held any more."""


class MaterialDamaged(Exception):
    """A file holds nothing that could be used."""


class CertificateFiles(NamedTuple):
    """Where a client certificate lies; `key` may be the same file."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What servers are shown: the certificate, its intermediates, and the key that proves it."""

    chain: tuple[x509.Certificate, ...]
    key: ClientKey = field(repr=False)

    def problem(self, now: datetime) -> str | None:
        """Why it is not shown at this time, or None."""
        own = self.chain[0]
        if now >= own.not_valid_after_utc:
            return f"ended on {own.not_valid_after_utc:%Y-%m-%d}"
        if now < own.not_valid_before_utc:
            return f"begins on {own.not_valid_before_utc:%Y-%m-%d}"
        return None


def read_roots(path: Path) -> tuple[x509.Certificate, ...]:
    """The CAs of a file."""
    found = _certificates(path, _read(path, is_secret=False))
    try:
        others = [_name(one) for one in found if not _is_ca(one)]
        has_root = any(one.issuer == one.subject for one in found)
    except _ODD:
        raise MaterialDamaged(f"{path}: a certificate in it is not as RFC 5280 has it") from None
    if others:
        raise MaterialDamaged(f"{path}: {others[0]} is no CA; expected CA certificates only")
    if not has_root:
        raise MaterialDamaged(f"{path}: no certificate is self-signed; expected a root among them")
    return found


def read_client_certificate(files: CertificateFiles) -> ClientCertificate:
    """A certificate and its key, which belong together."""
    is_one_file = files.certificate == files.key
    shown = _read(files.certificate, is_secret=is_one_file)
    key = _key(files.key, shown if is_one_file else _read(files.key, is_secret=True))
    chain = _certificates(files.certificate, shown)
    try:
        theirs = chain[0].public_key().public_bytes(*_PUBLIC_FORM)
    except _ODD:
        raise MaterialDamaged(f"{files.certificate}: the key in it is of no kind we know") from None
    if key.public_key().public_bytes(*_PUBLIC_FORM) != theirs:
        what = f"{files.key}: not the key of the first certificate in {files.certificate}"
        raise MaterialDamaged(what)
    found = ClientCertificate(chain, key)
    try:
        show(SSL.Context(SSL.TLS_CLIENT_METHOD), found)
    except SSL.Error as error:
        why = ", ".join(one[-1] for one in error.args[0]) if error.args else "no reason given"
        raise MaterialDamaged(f"{files.certificate}: TLS does not take it: {why}") from None
    return found


def show(context: SSL.Context, certificate: ClientCertificate) -> None:
    """Have a context show this certificate where it is asked for. Raises SSL.Error where OpenSSL
    does not take it: a key that is too small, a signature that is too weak."""
    own, *others = certificate.chain
    context.use_certificate(own)
    for other in others:
        context.add_extra_chain_cert(other)
    context.use_privatekey(certificate.key)
    context.check_privatekey()


def _read(path: Path, *, is_secret: bool) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor), is_secret=is_secret)
            content = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise MaterialGone(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_PEM_BYTES:
        raise MaterialDamaged(f"{path}: is larger than {MAX_PEM_BYTES} bytes")
    return content


def _check(path: Path, found: os.stat_result, *, is_secret: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise MaterialGone(f"{path}: is not a regular file")
    if not is_secret:
        return
    if found.st_uid not in (os.geteuid(), 0):
        raise MaterialGone(f"{path}: belongs to another user; expected us or root")
    if found.st_mode & _TOO_OPEN:
        mode = found.st_mode & 0o777
        raise MaterialGone(f"{path}: mode {mode:o} is too open for a key; expected 640 or stricter")


def _certificates(path: Path, content: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except _ODD:
        raise MaterialDamaged(f"{path}: holds no PEM certificates that can be read") from None


def _key(path: Path, content: bytes) -> ClientKey:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise MaterialDamaged(f"{path}: the key has a password; expected one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise MaterialDamaged(f"{path}: holds no PEM key that can be read") from None
    known = (
        ec.EllipticCurvePrivateKey,
        rsa.RSAPrivateKey,
        ed25519.Ed25519PrivateKey,
        ed448.Ed448PrivateKey,
    )
    if not isinstance(key, known):
        raise MaterialDamaged(f"{path}: the key is of a kind that TLS does not use; expected EC")
    return key


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:100] or "a certificate without a name"
