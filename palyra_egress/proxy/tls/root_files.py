"""The roots of one proxy, as files, and how one takes the other's place without anybody noticing.

`root.pem` and `root-key.pem` (0600) sign. While a change is under way `next-root.pem` with its key
is trusted and does not sign yet, or `old-root.pem` is trusted and does not sign any more; its key
is gone. So a change is three steps with time in between, in which workers take the new bundle:
`prepare`, `activate`, `retire`. Each step is durable when it returns, and one that was interrupted
is finished by the next reader. Writers take turns by a lock. A running proxy reads the files again
when they change. Certificates are P-256, ten years, path length 1. Sources: RFC 5280.
"""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from palyra_egress.errors import OperatorMustAct
from palyra_fleet.private_files import FileStamp, exclusive, read_private, replace, stamp
from palyra_fleet.trusted_files import UntrustedFile, read_trusted
from palyra_fleet.wire.keys import KeyFileError

MAX_KEY_BYTES: Final = 64 * 1024
ROOT_LIFE: Final = timedelta(days=3650)
CLOCK_SKEW: Final = timedelta(minutes=5)
_NAMES: Final = ("root.pem", "root-key.pem", "next-root.pem", "next-root-key.pem", "old-root.pem")
CA_KEY_USAGE: Final = x509.KeyUsage(
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


class AuthorityError(OperatorMustAct):
    """The CA files are missing a half, unreadable, too open, or not at this step."""


@dataclass(frozen=True, slots=True, repr=False)
class Issuer:
    """A certificate that signs, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Roots:
    """What is trusted, and which of it signs."""

    signing: Issuer
    coming: x509.Certificate | None = None
    old: x509.Certificate | None = None

    @property
    def trusted(self) -> tuple[x509.Certificate, ...]:
        """The signing one first."""
        others = (self.coming, self.old)
        return (self.signing.certificate, *(one for one in others if one is not None))


type RootStamps = tuple[FileStamp | None, ...]


class RootFiles:
    """The files in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def make(cls, directory: Path) -> Self:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(directory)

    def stamps(self) -> RootStamps:
        """Changes whenever a file does."""
        return tuple(stamp(self.directory / name) for name in _NAMES)

    def load_or_create(self, now: datetime) -> Roots:
        """Read the roots, or make the first. Raises AuthorityError."""
        with self._lock(is_first=True):
            key_path, path = self._at("root-key.pem"), self._at("root.pem")
            if key_path.exists() != path.exists():
                raise AuthorityError(
                    f"{self.directory}: root-key.pem and root.pem must both be there or both be"
                    " missing; restore the missing one from a backup"
                )
            if not key_path.exists():
                self._write_pair("root", _new_root(now))
            return self._load()

    def load(self) -> Roots:
        """Read the roots. Raises AuthorityError, also where there are none."""
        with self._lock():
            return self._load()

    def prepare(self, now: datetime) -> Roots:
        """Make the next root: trusted from now on, not signing yet. Raises AuthorityError."""
        with self._lock():
            roots = self._load()
            if roots.coming is not None or roots.old is not None:
                raise AuthorityError("a change is under way already; `palyra-egress ca show`")
            self._write_pair("next-root", _new_root(now))
            return self._load()

    def activate(self) -> Roots:
        """Let the next root sign; the one before stays trusted. Raises AuthorityError."""
        with self._lock():
            roots = self._load()
            if roots.coming is None:
                raise AuthorityError("no next root is there; begin with `palyra-egress ca rotate`")
            _read_issuer(self._at("next-root.pem"), self._at("next-root-key.pem"))
            replace(self._at("old-root.pem"), _pem(roots.signing.certificate))
            self._finish_activation()
            return self._load()

    def retire(self) -> Roots:
        """Trust the old root no more. Raises AuthorityError."""
        with self._lock():
            if self._load().old is None:
                raise AuthorityError("no old root is there to retire; `palyra-egress ca show`")
            self._at("old-root.pem").unlink()
            return self._load()

    def _lock(self, *, is_first: bool = False) -> AbstractContextManager[None]:
        if not is_first and not self._at("root.pem").exists():
            raise AuthorityError(f"{self.directory}: there is no root; `palyra-egress ca init`")
        return exclusive(self._at("roots.lock"))

    def _at(self, name: str) -> Path:
        return self.directory / name

    def _load(self) -> Roots:
        if self._at("old-root.pem").exists() and self._at("next-root.pem").exists():
            self._finish_activation()  # somebody was interrupted between its steps
        signing = _read_issuer(self._at("root.pem"), self._at("root-key.pem"))
        return Roots(signing, *(self._optional(name) for name in ("next-root.pem", "old-root.pem")))

    def _optional(self, name: str) -> x509.Certificate | None:
        path = self._at(name)
        return _read_certificate(path) if path.exists() else None

    def _finish_activation(self) -> None:
        """The old root is kept by now: the next one takes its place, key first."""
        next_key = self._at("next-root-key.pem")
        if next_key.exists():
            next_key.replace(self._at("root-key.pem"))
        self._at("next-root.pem").replace(self._at("root.pem"))

    def _write_pair(self, name: str, issuer: Issuer) -> None:
        """The key first: a certificate without its key is refused, a key alone is written over."""
        pem = issuer.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        replace(self._at(f"{name}-key.pem"), pem)
        replace(self._at(f"{name}.pem"), _pem(issuer.certificate))


def _read_issuer(path: Path, key_path: Path) -> Issuer:
    if not key_path.exists():
        raise AuthorityError(f"{key_path}: is missing; restore it from a backup")
    try:
        key = serialization.load_pem_private_key(
            read_private(key_path, MAX_KEY_BYTES), password=None
        )
    except KeyFileError as error:
        raise AuthorityError(str(error)) from error
    except ValueError as error:
        raise AuthorityError(f"{key_path}: the root CA files are damaged") from error
    certificate = _read_certificate(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{key_path}: expected an EC key")
    if key.public_key() != certificate.public_key():
        raise AuthorityError(f"{key_path}: is not the key of {path.name}")
    return Issuer(certificate, key)


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_trusted(path, MAX_KEY_BYTES)[0])
    except UntrustedFile as error:
        raise AuthorityError(str(error)) from error
    except ValueError as error:
        raise AuthorityError(f"{path}: the root CA files are damaged") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _new_root(now: datetime) -> Issuer:
    """Each has a name of its own: clients that find an issuer by its name must not find another."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Palyra"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Palyra Egress Root {os.urandom(4).hex()}"),
        ]
    )
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
    return Issuer(certificate, key)
