"""Sealing of secrets at rest: a master key, and records that open only under their own name.

A sealed record is `PSR1`, key id (8 bytes), salt (32), nonce (12), ChaCha20-Poly1305 ciphertext and
tag. Its key is HKDF-SHA256(master key, salt, info = "palyra-sealed-record-1"), so each sealing
has a key of its own; its associated data is the record's full name, so that a record put in the
place of another does not open. A key id is derived from its key and tells nothing about it.

The master key comes from the variable `PALYRA_MASTER_KEY` or from a 0600 file, as one line of text
`pmk1.` and 32 bytes in unpadded base64url. There may be several (lines, or commas in the variable):
the first seals, each opens what it sealed. So a key is changed by putting a new one in front,
sealing everything again, and dropping the old one, and an interruption loses nothing.
Sources: RFC 8439, RFC 5869. Python keeps no promise to wipe memory: a key stays in the memory of
the process that uses it.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palyra_fleet.private_files import exclusive, read_private, replace
from palyra_fleet.wire.keys import KeyFileError

MASTER_KEY_VARIABLE: Final = "PALYRA_MASTER_KEY"
_MAGIC: Final = b"PSR1"
_KEY_ID_BYTES: Final = 8
_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEAD_BYTES: Final = len(_MAGIC) + _KEY_ID_BYTES + _SALT_BYTES + _NONCE_BYTES
_RECORD_INFO: Final = b"palyra-sealed-record-1"
_KEY_ID_INFO: Final = b"palyra-key-id-1"
_KEY_TEXT: Final = re.compile(r"pmk1\.([A-Za-z0-9_-]{43})")
_MAX_KEYS: Final = 8
_MAX_KEY_FILE_BYTES: Final = 4096


class MasterKeyError(KeyFileError):
    """There is no usable master key; the message names the file or variable, never its value."""


class SealBroken(Exception):
    """A record does not open; the text says why: another key, another name, or changed bytes."""


class MasterKey:
    """32 secret bytes. Has no `repr` of them and no equality; `text` is for the key file."""

    __slots__ = ("_secret", "key_id")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ValueError("a master key has 32 bytes")
        self._secret = secret
        self.key_id = _derive(secret, b"", _KEY_ID_INFO, _KEY_ID_BYTES).hex()

    @classmethod
    def generate(cls) -> "MasterKey":
        return cls(os.urandom(32))

    @property
    def text(self) -> str:
        """The secret itself, as it stands in a key file."""
        return "pmk1." + base64.urlsafe_b64encode(self._secret).decode().rstrip("=")

    def record_key(self, salt: bytes) -> ChaCha20Poly1305:
        """The key of one sealing."""
        return ChaCha20Poly1305(_derive(self._secret, salt, _RECORD_INFO, 32))

    def __repr__(self) -> str:
        return f"MasterKey({self.key_id})"

    def __reduce__(self) -> str:
        raise TypeError("a master key is not pickled")


@dataclass(frozen=True, slots=True, eq=False)
class KeyRing:
    """The master keys of one place, the one that seals first. `source` is named in messages."""

    source: str
    keys: tuple[MasterKey, ...]

    @property
    def key_id(self) -> str:
        """The id of the key that seals."""
        return self.keys[0].key_id

    def has(self, key_id: str) -> bool:
        return any(key.key_id == key_id for key in self.keys)

    def seal(self, name: str, plaintext: bytes) -> bytes:
        """A sealed record that opens under `name` only."""
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        head = _MAGIC + bytes.fromhex(self.key_id) + salt + nonce
        return head + self.keys[0].record_key(salt).encrypt(nonce, plaintext, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """What was sealed under `name`. Raises SealBroken."""
        key_id = key_id_of(sealed)
        key = next((key for key in self.keys if key.key_id == key_id), None)
        if key is None:
            raise SealBroken(
                f"{name}: was sealed with the key {key_id}; {self.source} has "
                + ", ".join(known.key_id for known in self.keys)
            )
        rest = sealed[len(_MAGIC) + _KEY_ID_BYTES :]
        salt, nonce = rest[:_SALT_BYTES], rest[_SALT_BYTES : _SALT_BYTES + _NONCE_BYTES]
        try:
            return key.record_key(salt).decrypt(nonce, sealed[_HEAD_BYTES:], name.encode())
        except InvalidTag:
            raise SealBroken(f"{name}: was changed, or sealed under another name") from None


def key_id_of(sealed: bytes) -> str:
    """The id of the key that a record was sealed with. Raises SealBroken if it is no record."""
    if len(sealed) < _HEAD_BYTES + _TAG_BYTES or not sealed.startswith(_MAGIC):
        raise SealBroken("not a sealed record, or cut short")
    return sealed[len(_MAGIC) : len(_MAGIC) + _KEY_ID_BYTES].hex()


def load_key_ring(file: Path, environment: Mapping[str, str] = os.environ) -> KeyRing:
    """The keys of the variable if it is set, otherwise those of the file. Raises MasterKeyError."""
    given = environment.get(MASTER_KEY_VARIABLE)
    if given is not None:
        return _ring_of(f"the variable {MASTER_KEY_VARIABLE}", given.split(","))
    try:
        content = read_private(file, _MAX_KEY_FILE_BYTES)
    except KeyFileError as error:
        raise MasterKeyError(
            f"{error} (the master key; {MASTER_KEY_VARIABLE} is not set)"
        ) from None
    text = content.decode("ascii", errors="replace")
    return _ring_of(str(file), text.splitlines())


def load_or_create_key_ring(file: Path, environment: Mapping[str, str] = os.environ) -> KeyRing:
    """`load_key_ring`; where neither variable nor file is there, a new key in the file."""
    if MASTER_KEY_VARIABLE not in environment:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with exclusive(file.with_name(file.name + ".lock")):
            if not os.path.lexists(file):
                write_key_file(file, (MasterKey.generate(),))
    return load_key_ring(file, environment)


def write_key_file(file: Path, keys: tuple[MasterKey, ...]) -> None:
    """Replace the key file, in one durable step."""
    replace(file, "".join(f"{key.text}\n" for key in keys).encode())


def _ring_of(source: str, lines: list[str]) -> KeyRing:
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise MasterKeyError(f"{source}: is empty; expected a key, `pmk1.` and 43 letters")
    if len(texts) > _MAX_KEYS:
        raise MasterKeyError(f"{source}: has {len(texts)} keys; expected {_MAX_KEYS} at most")
    keys = []
    for number, text in enumerate(texts, start=1):
        secret = _secret_of(text)
        if secret is None:
            raise MasterKeyError(
                f"{source}: key {number} is not a master key; expected `pmk1.` and 43 letters"
                " of base64url, as `palyra-egress vault init` writes it"
            )
        keys.append(MasterKey(secret))
    return KeyRing(source, tuple(keys))


def _secret_of(text: str) -> bytes | None:
    match = _KEY_TEXT.fullmatch(text)
    if match is None:
        return None
    try:
        secret = base64.urlsafe_b64decode(match[1] + "=")
    except binascii.Error:
        return None
    return secret if len(secret) == 32 else None


def _derive(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt or None, info=info).derive(secret)
