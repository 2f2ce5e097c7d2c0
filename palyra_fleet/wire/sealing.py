"""Secrets at rest: sealed with ChaCha20-Poly1305 under one master key, each bound to its name.

A sealed box is `PSL1` ‖ key id (8 bytes) ‖ nonce (12 random bytes) ‖ ciphertext with its tag. The
associated data is `palyra-sealed-v1` ‖ 0 ‖ the record's name, so a box that is put in another
record's place does not open. The key id tells "another master key" from "damaged"; it is derived
one-way and says nothing about the key. The master key is 32 bytes, written as 64 hex digits; it
comes from a key manager, from the environment (PALYRA_MASTER_KEY) or from a file with mode 0600.
Sources: RFC 8439; RFC 5869.
"""

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ENVIRONMENT_NAME: Final = "PALYRA_MASTER_KEY"
KEY_BYTES: Final = 32
_MAGIC: Final = b"PSL1"
_KEY_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_HEADER_BYTES: Final = len(_MAGIC) + _KEY_ID_BYTES
_ASSOCIATED: Final = b"palyra-sealed-v1\0"
_HEX_KEY: Final = re.compile("[0-9a-fA-F]{64}")


class MasterKeyError(Exception):
    """There is no usable master key; the operator must act. Names the place, never the key."""


class SealBroken(Exception):
    """A sealed record does not open; the text says which and why, and nothing of its content."""


class MasterKeySource(Protocol):
    """Where a master key comes from: the seam for a key manager."""

    def master_key_bytes(self) -> bytes:
        """The 32 bytes of the key. Raises MasterKeyError."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class MasterKey:
    """Seals and opens records. Its `repr` shows the key's id only."""

    _key: bytes
    _key_id: bytes

    @classmethod
    def of(cls, key: bytes) -> "MasterKey":
        """Raises MasterKeyError if this is not 32 bytes, or all the same byte (never random)."""
        if len(key) != KEY_BYTES or len(set(key)) == 1:
            raise MasterKeyError(f"the master key must be {KEY_BYTES} random bytes")
        derived = HKDF(SHA256(), _KEY_ID_BYTES, salt=None, info=b"palyra-master-key-id-v1")
        return cls(key, derived.derive(key))

    @property
    def key_id(self) -> str:
        """Names the key without telling it (16 hex digits)."""
        return self._key_id.hex()

    def seal(self, name: str, secret: bytes) -> bytes:
        """A box that only this key opens, and only as the record `name`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = ChaCha20Poly1305(self._key).encrypt(nonce, secret, _associated(name))
        return _MAGIC + self._key_id + nonce + sealed

    def open(self, name: str, box: bytes) -> bytes:
        """The secret. Raises SealBroken."""
        if not box.startswith(_MAGIC) or len(box) < _HEADER_BYTES + _NONCE_BYTES:
            raise SealBroken(f"sealed record '{name}': not a sealed record; restore it")
        key_id = box[len(_MAGIC) : _HEADER_BYTES]
        if key_id != self._key_id:
            raise SealBroken(
                f"sealed record '{name}': sealed under another master key (id {key_id.hex()},"
                f" ours has {self.key_id}); start with the key that sealed it"
            )
        body = box[_HEADER_BYTES:]
        try:
            return ChaCha20Poly1305(self._key).decrypt(
                body[:_NONCE_BYTES], body[_NONCE_BYTES:], _associated(name)
            )
        except InvalidTag:
            raise SealBroken(
                f"sealed record '{name}': it was changed, or is another record's; restore it"
            ) from None

    def __repr__(self) -> str:
        return f"MasterKey(id {self.key_id})"


def master_key_of(source: MasterKeySource) -> MasterKey:
    """The key that a key manager gives."""
    return MasterKey.of(source.master_key_bytes())


def take_from_environment(environment: MutableMapping[str, str]) -> MasterKey | None:
    """The key of PALYRA_MASTER_KEY, which is removed there, so that no child process inherits it.

    None if it is not set; raises MasterKeyError if it is set to anything but a key.
    """
    text = environment.pop(ENVIRONMENT_NAME, None)
    return None if text is None else _parse(text, ENVIRONMENT_NAME)


def load_key_file(path: Path) -> MasterKey:
    """The key of a 0600 file of ours. Raises MasterKeyError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
            found = os.fstat(file.fileno())
            text = file.read(KEY_BYTES * 2 + 2)
    except OSError as error:
        raise MasterKeyError(
            f"{path}: cannot read the master key: {error.strerror}; restore the file, or set"
            f" {ENVIRONMENT_NAME}"
        ) from error
    if found.st_uid != os.geteuid():
        raise MasterKeyError(f"{path}: belongs to another user, who knows this key")
    if found.st_mode & 0o077:
        raise MasterKeyError(f"{path}: mode {found.st_mode & 0o777:o} is too open; expected 600")
    return _parse(text, str(path))


def create_key_file(path: Path) -> MasterKey:
    """A new key in a new 0600 file, durable when this returns; never overwrites."""
    key = os.urandom(KEY_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MasterKeyError(f"{path}: cannot make the master key: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return MasterKey.of(key)


def _parse(text: str, place: str) -> MasterKey:
    if _HEX_KEY.fullmatch(text.strip()) is None:
        raise MasterKeyError(f"{place}: expected the master key as 64 hex digits")
    try:
        return MasterKey.of(bytes.fromhex(text.strip()))
    except MasterKeyError as error:
        raise MasterKeyError(f"{place}: {error}") from None


def _associated(name: str) -> bytes:
    return _ASSOCIATED + name.encode()
