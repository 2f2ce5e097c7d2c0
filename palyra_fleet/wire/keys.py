"""Ed25519 signing keys of workers, proxies and launchers, and how they are named.

A key's thumbprint is the lower-case hex SHA-256 of its 32 raw public bytes (64 digits). Private
keys live in 0600 files (PKCS#8 PEM) that are created atomically and never printed: the `repr` of a
`SigningKey` shows the thumbprint only. Source: RFC 8032.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_KEY_BYTES = 32
_SIGN_BIT = 0x80
_SMALL_ORDER = frozenset(
    bytes.fromhex(encoded)
    for encoded in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Points of small order, sign bit clear: such a "key" has signatures that need no private key, for
any message, and OpenSSL takes them. Source: RFC 8032, section 8.9; libsodium, ge25519."""


class KeyFileError(Exception):
    """A key file is missing, unreadable by its type, or too open; the operator must act."""


def thumbprint_sha256(public_key: bytes) -> str:
    """The name of a key: hex SHA-256 of its raw public bytes."""
    return hashlib.sha256(public_key).hexdigest()


def is_small_order(public_key: bytes) -> bool:
    """Whether anybody can sign with this key."""
    if not public_key:
        return False
    return public_key[:-1] + bytes([public_key[-1] & ~_SIGN_BIT]) in _SMALL_ORDER


def signature_is_valid(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """True only if `signature` is this key's Ed25519 signature of `message`; never raises."""
    if is_small_order(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """A private key that signs; its `repr` and equality show the public part only."""

    _private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> "SigningKey":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def of_seed(cls, seed: bytes) -> "SigningKey":
        """The key of a 32-byte seed (RFC 8032)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Read a key file. Raises KeyFileError if it is missing, too open or not Ed25519."""
        try:
            mode = path.stat().st_mode
            pem = path.read_bytes()
        except OSError as error:
            raise KeyFileError(f"{path}: cannot read the key file: {error.strerror}") from error
        if mode & 0o077:
            raise KeyFileError(f"{path}: mode {mode & 0o777:o} is too open; expected 600")
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except ValueError as error:
            raise KeyFileError(f"{path}: not a PEM private key") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFileError(f"{path}: expected an Ed25519 key")
        return cls(private)

    @classmethod
    def load_or_create(cls, path: Path) -> "SigningKey":
        """Read the key file, or make a new key there (0600, never overwriting)."""
        if path.exists():
            return cls.load(path)
        key = cls.generate()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = key._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        return key

    @property
    def public_key(self) -> bytes:
        """The 32 raw public bytes."""
        return self._private.public_key().public_bytes_raw()

    @property
    def thumbprint(self) -> str:
        return thumbprint_sha256(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.thumbprint[:16]}…)"
