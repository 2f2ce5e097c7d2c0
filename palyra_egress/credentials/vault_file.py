"""The vault on disk: made, read, changed and sealed again under a new key.

Writers take turns by a lock file beside the vault; each change is one durable rename, so a reader
needs no lock and sees the vault before or after, also when a writer is killed. A reader that meets
a rotation half-way (key file and vault are two files) reads both again. Times come in as arguments.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from palyra_egress.credentials.vault_format import (
    MAX_VAULT_BYTES,
    Vault,
    VaultDamaged,
    VaultError,
    VaultKeyMissing,
    decode,
    encode,
)
from palyra_fleet.private_files import (
    VAULT_KEY,
    FileStamp,
    credential,
    exclusive,
    read_private,
    replace,
    stamp,
)
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.sealing import (
    ENVIRONMENT_NAME,
    MasterKey,
    SealBroken,
    create_key_file,
    find_master_key,
    replace_key_file,
)

VAULT_FILE: Final = "vault.json"
MASTER_KEY_FILE: Final = "master.key"
_ATTEMPTS: Final = 10


class VaultMissing(VaultError):
    """There is no vault yet."""


@dataclass(frozen=True, slots=True)
class OpenVault:
    """A vault with the key that opens its records."""

    vault: Vault
    key: MasterKey


@dataclass(frozen=True, slots=True)
class VaultFile:
    """The place of one vault: its file, and the file of its master keys."""

    path: Path
    key_path: Path
    environment: Mapping[str, str] = field(repr=False)

    @classmethod
    def in_directory(
        cls,
        directory: Path,
        key_path: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Self:
        """The vault of a state directory; its key where it is told to be, else what the service
        manager handed over, else beside it."""
        key_path = key_path or credential(VAULT_KEY) or directory / MASTER_KEY_FILE
        return cls(directory / VAULT_FILE, key_path, environment)

    @property
    def looks(self) -> tuple[FileStamp | None, FileStamp | None]:
        """What changes when the vault or its keys do."""
        return stamp(self.path), stamp(self.key_path)

    @property
    def key_place(self) -> str:
        """Where the master key comes from, for people."""
        if self.takes_key_from_environment:
            return f"the variable {ENVIRONMENT_NAME}"
        return str(self.key_path)

    @property
    def takes_key_from_environment(self) -> bool:
        return ENVIRONMENT_NAME in self.environment

    def create(self) -> OpenVault:
        """A new, empty vault, and a key file if there is no key yet."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._turn():
            if os.path.lexists(self.path):
                raise VaultError(f"{self.path}: is there already; it is not overwritten")
            opened = OpenVault(Vault(os.urandom(16).hex(), 1), self._find_or_make_key())
            replace(self.path, encode(opened.vault, opened.key))
        return opened

    def read(self) -> OpenVault:
        """The vault as it is now. Raises VaultError."""
        for _ in range(_ATTEMPTS):
            looks = self.looks
            try:
                return self._read()
            except VaultKeyMissing:
                if looks == self.looks:
                    raise
        return self._read()

    def change(self, make: Callable[[OpenVault], Vault]) -> OpenVault:
        """Put what `make` answers in the vault's place. What it raises changes nothing."""
        self._demand()
        with self._turn():
            opened = self._read()
            changed = make(opened)
            replace(self.path, encode(changed, opened.key))
        return OpenVault(changed, opened.key)

    def rotate_key(self) -> OpenVault:
        """Seal everything again: under a new key in the key file, or under the variable's first.

        New key in front, vault sealed again, old keys dropped: each is one durable step, and what
        an interrupted rotation left is finished by the next one.
        """
        self._demand()
        with self._turn():
            opened = self._read()
            in_file = not self.takes_key_from_environment
            key = self._with_new_key(opened.key) if in_file else opened.key
            try:
                vault = opened.vault.sealed_again(opened.key, key)
            except SealBroken as error:
                raise VaultDamaged(f"{self.path}: {error}") from None
            replace(self.path, encode(vault, key))
            if in_file:
                replace_key_file(self.key_path, key.alone)
        return OpenVault(vault, key.alone)

    def _with_new_key(self, key: MasterKey) -> MasterKey:
        if key.older:
            return key
        fresh = MasterKey.generate(older=(key,))
        replace_key_file(self.key_path, fresh)
        return fresh

    def _turn(self) -> AbstractContextManager[None]:
        return exclusive(self.path.with_name(self.path.name + ".lock"))

    def _demand(self) -> None:
        if not self.path.exists():
            raise VaultMissing(
                f"{self.path}: there is no vault yet; make one with `palyra-egress vault init`"
            )

    def _read(self) -> OpenVault:
        self._demand()
        try:
            key = find_master_key(self.key_path, self.environment)
            content = read_private(self.path, MAX_VAULT_BYTES)
        except KeyFileError as error:
            raise VaultError(str(error)) from None
        return OpenVault(decode(content, key, str(self.path)), key)

    def _find_or_make_key(self) -> MasterKey:
        try:
            if self.takes_key_from_environment or os.path.lexists(self.key_path):
                return find_master_key(self.key_path, self.environment)
            return create_key_file(self.key_path)
        except KeyFileError as error:
            raise VaultError(str(error)) from None
