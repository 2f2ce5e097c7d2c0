"""What rules name to meet servers, as it lies in files: roots, and client certificates with keys.

Roots are a PEM file of CA certificates, at least one of them self-signed (RFC 5280 section 6.1.1:
OpenSSL ends a chain at nothing else); the bundle, which holds where no rule says anything, is any
PEM file of certificates. A client certificate is a PEM file with the certificate, then its
intermediates, and its key there too or in a file of its own; the key must belong to it, be readable
by us or root only and have no password. Nobody but us and root may be able to change any of them
(`trusted_files`). Reading raises `MaterialGone` where a file is missing or may not be used,
`MaterialUnread` where trying again may help, and `MaterialDamaged` where what it holds makes no
sense, as while two files are being replaced. No text holds anything of a key. Blocking.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from OpenSSL import SSL, crypto

from palyra_fleet.trusted_files import UntrustedFile, read_trusted

MAX_PEM_BYTES: Final = 1024 * 1024
MAX_BUNDLE_BYTES: Final = 4 * MAX_PEM_BYTES  # the public roots, and a file of an installation's own
_TOO_OPEN: Final = 0o027
_PEM_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_PEM_CERTIFICATE: Final = re.compile(_PEM_BEGIN + b"[^-]+-----END CERTIFICATE-----")
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


class MaterialUnread(MaterialGone):
    """A file could not be read, for all that is known only now: as when descriptors have run out.
    Until it was read nothing is held."""


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


def read_bundle(path: Path, max_bytes: int = MAX_BUNDLE_BYTES) -> tuple[crypto.X509, ...]:
    """The certificates of a file, whatever they are, as OpenSSL reads them: some that are public
    roots are older than today's rules for the form. At least one."""
    content = _read(path, is_secret=False, max_bytes=max_bytes)
    blocks = _PEM_CERTIFICATE.findall(content)
    try:
        found = tuple(crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks)
    except crypto.Error:
        found = ()
    if not found or len(found) != content.count(_PEM_BEGIN):
        raise MaterialDamaged(f"{path}: holds no PEM certificates that can be read")
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


def _read(path: Path, *, is_secret: bool, max_bytes: int = MAX_PEM_BYTES) -> bytes:
    try:
        content, found = read_trusted(path, max_bytes)
    except UntrustedFile as error:
        raise MaterialGone(str(error)) from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MaterialGone(f"{path}: cannot be read: {error.strerror}") from None
    except OSError as error:
        raise MaterialUnread(f"{path}: cannot be read: {error.strerror}") from None
    if is_secret and found.st_mode & _TOO_OPEN:
        mode = found.st_mode & 0o777
        raise MaterialGone(f"{path}: mode {mode:o} is too open for a key; expected 640 or stricter")
    return content


def for_openssl(certificates: tuple[x509.Certificate, ...]) -> tuple[crypto.X509, ...]:
    """The same certificates, as contexts take them."""
    return tuple(crypto.X509.from_cryptography(one) for one in certificates)


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
