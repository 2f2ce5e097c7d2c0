"""Secrets at rest: sealed with ChaCha20-Poly1305 under a master key, each bound to its name.

A sealed box is `PSL1` ‖ key id (8 bytes) ‖ salt (32 random bytes) ‖ nonce (12) ‖ ciphertext and
tag. Each box has a key of its own, HKDF-SHA256 of master key and salt. The associated data is
`palyra-sealed-v1` ‖ 0 ‖ the record's name, so a box that is put in another record's place does not
open. The key id tells "another master key" from "damaged"; it is derived one-way and says nothing
about the key.

The master key is 32 bytes, written as 64 hex digits; it comes from a key manager, from the
environment (PALYRA_MASTER_KEY) or from a file with mode 0600. Several may stand there (lines, or
commas): the first seals, each opens what it sealed. So a key is changed by putting a new one in
front, sealing everything again and dropping the old one, and an interruption loses nothing. Fleet
and proxy use this module, in one process too, so the variable is read and not taken away; no worker
inherits it (`worker/environment.py`). Sources: RFC 8439; RFC 5869.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palyra_fleet.private_files import create, read_private, replace
from palyra_fleet.wire.keys import KeyFileError

ENVIRONMENT_NAME: Final = "PALYRA_MASTER_KEY"
KEY_BYTES: Final = 32
MAX_KEYS: Final = 8
_MAGIC: Final = b"PSL1"
_KEY_ID_BYTES: Final = 8
_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_SALT_AT: Final = len(_MAGIC) + _KEY_ID_BYTES
_NONCE_AT: Final = _SALT_AT + _SALT_BYTES
_BODY_AT: Final = _NONCE_AT + _NONCE_BYTES
_ASSOCIATED: Final = b"palyra-sealed-v1\0"
_HEX_KEY: Final = re.compile("[0-9a-fA-F]{64}")
_MAX_FILE_BYTES: Final = 4096


class MasterKeyError(KeyFileError):
    """There is no usable master key; the operator must act. Names the place, never the key."""


class SealBroken(Exception):
    """A sealed record does not open; the text says which and why, and nothing of its content."""


class MasterKeySource(Protocol):
    """Where a master key comes from: the seam for a key manager."""

    def master_key_bytes(self) -> bytes:
        """The 32 bytes of the key. Raises MasterKeyError."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class MasterKey:
    """Seals and opens records. Its `repr` shows the key's id only.

    `older` are keys that open what they sealed and seal nothing any more.
    """

    _key: bytes
    _key_id: bytes
    older: tuple["MasterKey", ...] = ()

    @classmethod
    def of(cls, key: bytes, older: tuple["MasterKey", ...] = ()) -> "MasterKey":
        """Raises MasterKeyError if this is not 32 bytes, or all the same byte (never random)."""
        if len(key) != KEY_BYTES or len(set(key)) == 1:
            raise MasterKeyError(f"the master key must be {KEY_BYTES} random bytes")
        return cls(key, _derive(key, None, b"palyra-master-key-id-v1", _KEY_ID_BYTES), older)

    @classmethod
    def generate(cls, older: tuple["MasterKey", ...] = ()) -> "MasterKey":
        return cls.of(os.urandom(KEY_BYTES), older)

    @property
    def key_id(self) -> str:
        """Names the key without telling it (16 hex digits)."""
        return self._key_id.hex()

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Every key that opens, the one that seals first."""
        return (self.key_id, *(key.key_id for key in self.older))

    @property
    def alone(self) -> "MasterKey":
        """This key without the older ones."""
        return MasterKey(self._key, self._key_id)

    def seal(self, name: str, secret: bytes) -> bytes:
        """A box that only this key opens, and only as the record `name`."""
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        sealed = self._box_key(salt).encrypt(nonce, secret, _associated(name))
        return _MAGIC + self._key_id + salt + nonce + sealed

    def open(self, name: str, box: bytes) -> bytes:
        """The secret. Raises SealBroken."""
        key_id = key_id_of(name, box)
        key = next((key for key in (self, *self.older) if key.key_id == key_id), None)
        if key is None:
            raise SealBroken(
                f"sealed record '{name}': sealed under another master key (id {key_id},"
                f" ours has {', '.join(self.key_ids)}); start with the key that sealed it"
            )
        salt, nonce = box[_SALT_AT:_NONCE_AT], box[_NONCE_AT:_BODY_AT]
        try:
            return key._box_key(salt).decrypt(nonce, box[_BODY_AT:], _associated(name))
        except InvalidTag:
            raise SealBroken(
                f"sealed record '{name}': it was changed, or is another record's; restore it"
            ) from None

    def _box_key(self, salt: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(_derive(self._key, salt, b"palyra-sealed-record-v1", KEY_BYTES))

    def _text(self) -> bytes:
        """As it stands in a key file: the secret itself."""
        return b"".join(f"{key._key.hex()}\n".encode() for key in (self, *self.older))

    def __repr__(self) -> str:
        return f"MasterKey(id {self.key_id})"

    def __reduce__(self) -> str:
        raise TypeError("a master key is neither pickled nor copied")


def key_id_of(name: str, box: bytes) -> str:
    """Which master key sealed the record `name`. Raises SealBroken if this is no box."""
    if not box.startswith(_MAGIC) or len(box) < _BODY_AT + _TAG_BYTES:
        raise SealBroken(f"sealed record '{name}': not a sealed record; restore it")
    return box[len(_MAGIC) : _SALT_AT].hex()


def master_key_of(source: MasterKeySource) -> MasterKey:
    """The key that a key manager gives."""
    return MasterKey.of(source.master_key_bytes())


def read_from_environment(environment: Mapping[str, str]) -> MasterKey | None:
    """The key of PALYRA_MASTER_KEY. None if it is not set; raises MasterKeyError if it is set to
    anything but a key."""
    text = environment.get(ENVIRONMENT_NAME)
    return None if text is None else _parse(text.split(","), ENVIRONMENT_NAME)


def load_key_file(path: Path) -> MasterKey:
    """The key of a 0600 file of ours. Raises MasterKeyError."""
    try:
        content = read_private(path, _MAX_FILE_BYTES)
    except KeyFileError as error:
        raise MasterKeyError(
            f"{error} (the master key: restore the file, or set {ENVIRONMENT_NAME})"
        ) from None
    return _parse(content.decode("ascii", errors="replace").splitlines(), str(path))


def find_master_key(path: Path, environment: Mapping[str, str]) -> MasterKey:
    """The key of the environment if it is set there, otherwise of the file."""
    return read_from_environment(environment) or load_key_file(path)


def create_key_file(path: Path) -> MasterKey:
    """A new key in a new 0600 file, durable when this returns; never overwrites."""
    key = MasterKey.generate()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        create(path, key._text())
    except OSError as error:
        raise MasterKeyError(f"{path}: cannot make the master key: {error.strerror}") from error
    return key


def replace_key_file(path: Path, key: MasterKey) -> None:
    """Put a key and its older ones in the file's place, in one durable step."""
    replace(path, key._text())


def _parse(lines: list[str], place: str) -> MasterKey:
    texts = [line.strip() for line in lines if line.strip()]
    if not 1 <= len(texts) <= MAX_KEYS or not all(_HEX_KEY.fullmatch(text) for text in texts):
        raise MasterKeyError(
            f"{place}: expected the master key as 64 hex digits"
            f" (or up to {MAX_KEYS} keys, the one that seals first)"
        )
    try:
        first, *older = (MasterKey.of(bytes.fromhex(text)) for text in texts)
    except MasterKeyError as error:
        raise MasterKeyError(f"{place}: {error}") from None
    return MasterKey(first._key, first._key_id, tuple(older))


def _derive(key: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=salt, info=info).derive(key)


def _associated(name: str) -> bytes:
    return _ASSOCIATED + name.encode()
