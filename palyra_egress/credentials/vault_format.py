"""The sealed vault as bytes, and back. Pure but for the salts of sealing.

A vault is one JSON object: `format`, `version`, `key_id` (the master key that seals it), `records`
(name → sealed record, base64) and `manifest` (sealed). The manifest holds the vault's id, its
generation, which grows with every change, and for every record its times, its size and the SHA-256
of its sealed bytes. A record is sealed under its full name, `vault:<name>`.
Invariants: a vault is used whole or not at all: a record that is missing, added, swapped, changed
or older than its manifest refuses all of it; no message holds anything that was sealed.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palyra_egress.credentials.binding import SecretSource
from palyra_egress.errors import OperatorMustAct
from palyra_fleet.wire.sealing import MasterKey, SealBroken, key_id_of

VERSION: Final = 1
MAX_VAULT_BYTES: Final = 4 * 1024 * 1024
MAX_RECORDS: Final = 1_000
MANIFEST_NAME: Final = "vault-manifest"
"""No record has this full name: theirs begin with `vault:`."""

type Moment = Annotated[int, Field(ge=0)]


class VaultError(OperatorMustAct):
    """The vault cannot be used; nothing of it is."""


class VaultDamaged(VaultError):
    """The file is not, or no longer, what was written; it says what was noticed first."""


class VaultKeyMissing(VaultError):
    """The vault was sealed with a master key that is not at hand."""


class RecordFacts(BaseModel):
    """What the manifest says about one record; nothing of its value but the size."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sealed_sha256: str
    created_at_unix_ms: Moment
    updated_at_unix_ms: Moment
    value_bytes: Moment


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    vault_id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    generation: Annotated[int, Field(ge=1)]
    records: dict[str, RecordFacts]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["palyra-vault"]
    version: Literal[1]
    key_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    records: Annotated[dict[str, str], Field(max_length=MAX_RECORDS)]
    manifest: str


@dataclass(frozen=True, slots=True)
class Vault:
    """An opened vault: its records still sealed, and what the manifest says about each."""

    vault_id: str
    generation: int
    facts: Mapping[str, RecordFacts] = field(default_factory=dict)
    sealed: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def with_record(self, name: str, value: str, key: MasterKey, now_unix_ms: int) -> Self:
        """This vault with one record set."""
        if name not in self.facts and len(self.facts) >= MAX_RECORDS:
            raise VaultError(f"a vault holds {MAX_RECORDS} records at most; remove one first")
        plaintext = value.encode()
        sealed = key.seal(full_name(name), plaintext)
        known = self.facts.get(name)
        facts = RecordFacts(
            sealed_sha256=hashlib.sha256(sealed).hexdigest(),
            created_at_unix_ms=now_unix_ms if known is None else known.created_at_unix_ms,
            updated_at_unix_ms=now_unix_ms,
            value_bytes=len(plaintext),
        )
        return self._next({**self.facts, name: facts}, {**self.sealed, name: sealed})

    def without_record(self, name: str) -> Self:
        """This vault with one record less; it must be there."""
        facts = dict(self.facts)
        del facts[name]
        return self._next(facts, {known: self.sealed[known] for known in facts})

    def sealed_again(self, old: MasterKey, new: MasterKey) -> Self:
        """This vault with every record sealed by `new`. Raises SealBroken."""
        facts: dict[str, RecordFacts] = {}
        sealed: dict[str, bytes] = {}
        for name, row in self.facts.items():
            sealed[name] = new.seal(full_name(name), old.open(full_name(name), self.sealed[name]))
            digest = hashlib.sha256(sealed[name]).hexdigest()
            facts[name] = row.model_copy(update={"sealed_sha256": digest})
        return self._next(facts, sealed)

    def value(self, name: str, key: MasterKey) -> str:
        """The value of a record that is there. Raises SealBroken."""
        plaintext = key.open(full_name(name), self.sealed[name])
        return plaintext.decode("ascii", errors="replace")

    def _next(self, facts: Mapping[str, RecordFacts], sealed: Mapping[str, bytes]) -> Self:
        return replace(self, generation=self.generation + 1, facts=facts, sealed=sealed)


def full_name(name: str) -> str:
    """What a record is sealed under: its reference as policies write it."""
    return f"{SecretSource.VAULT.value}:{name}"


def encode(vault: Vault, key: MasterKey) -> bytes:
    """The file's bytes, sealed by this key. Raises VaultError if they are too many."""
    manifest = _Manifest(
        vault_id=vault.vault_id, generation=vault.generation, records=dict(vault.facts)
    )
    sealed = key.seal(MANIFEST_NAME, manifest.model_dump_json().encode())
    document = {
        "format": "palyra-vault",
        "version": VERSION,
        "key_id": key.key_id,
        "records": {name: _text(vault.sealed[name]) for name in sorted(vault.sealed)},
        "manifest": _text(sealed),
    }
    content = json.dumps(document, indent=1).encode() + b"\n"
    if len(content) > MAX_VAULT_BYTES:
        raise VaultError(f"the vault would be larger than {MAX_VAULT_BYTES} bytes")
    return content


def decode(content: bytes, key: MasterKey, file: str) -> Vault:
    """The vault in these bytes, verified as a whole. Raises VaultDamaged or VaultKeyMissing."""
    document = _document(content, file)
    if document.key_id not in key.key_ids:
        raise VaultKeyMissing(
            f"{file}: is sealed with the master key {document.key_id}; ours has the id"
            f" {', '.join(key.key_ids)}"
        )
    sealed_manifest = _bytes(document.manifest, file, "the manifest")
    sealed = {name: _bytes(text, file, "a record") for name, text in document.records.items()}
    try:
        if key_id_of(MANIFEST_NAME, sealed_manifest) != document.key_id:
            raise VaultDamaged(f"{file}: its key id is not the one its manifest is sealed with")
        plaintext = key.open(MANIFEST_NAME, sealed_manifest)
    except SealBroken as error:
        raise VaultDamaged(f"{file}: {error}; {_RESTORE}") from None
    manifest = _manifest(plaintext, file)
    _check_set(manifest, sealed, file)
    return Vault(manifest.vault_id, manifest.generation, manifest.records, sealed)


_RESTORE: Final = "restore the file from a backup, or make a new vault and set its secrets again"


def _check_set(manifest: _Manifest, sealed: Mapping[str, bytes], file: str) -> None:
    """The records are exactly those the manifest was sealed with."""
    for name, row in manifest.records.items():
        if name not in sealed:
            raise VaultDamaged(f"{file}: the record {name} was taken away; {_RESTORE}")
        if hashlib.sha256(sealed[name]).hexdigest() != row.sealed_sha256:
            raise VaultDamaged(
                f"{file}: the record {name} is not the one that was set (changed, swapped or"
                f" older); {_RESTORE}"
            )
    if extra := sorted(sealed.keys() - manifest.records.keys()):
        raise VaultDamaged(f"{file}: {len(extra)} records were put in by hand; {_RESTORE}")


def _document(content: bytes, file: str) -> _Document:
    problem = f"{file}: is not a vault, or cut short; {_RESTORE}"
    try:
        found = json.loads(content, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        raise VaultDamaged(problem) from None
    if isinstance(found, dict) and found.get("format") == "palyra-vault":
        version = found.get("version")
        if isinstance(version, int) and version > VERSION:
            raise VaultError(f"{file}: has version {version}; this program reads {VERSION}")
    try:
        return _Document.model_validate(found)
    except ValidationError as error:
        places = ", ".join(sorted({str((row["loc"] or ("?",))[0])[:20] for row in error.errors()}))
        raise VaultDamaged(f"{file}: is not a vault: look at {places}; {_RESTORE}") from None


def _manifest(plaintext: bytes, file: str) -> _Manifest:
    try:
        return _Manifest.model_validate_json(plaintext)
    except ValidationError:
        raise VaultDamaged(f"{file}: its manifest is not one; {_RESTORE}") from None


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _text(sealed: bytes) -> str:
    return base64.b64encode(sealed).decode()


def _bytes(text: str, file: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise VaultDamaged(f"{file}: {what} is not base64; {_RESTORE}") from None
