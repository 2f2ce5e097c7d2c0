"""Secrets in the sealed vault (`vault:scope/name`), read again when vault or key file change.

A vault that cannot be used gives nothing, whatever it gave before: it is replaced in one step, so
there is no moment in which a good one looks bad. While the process runs, a generation lower than
one that was seen refuses it too: somebody put an older file there. Blocking; call it in a thread.
"""

from palyra_egress.credentials.binding import SecretValue
from palyra_egress.credentials.held import Findings, Held, SecretUnusable, secret_in
from palyra_egress.credentials.vault_file import OpenVault, VaultFile
from palyra_egress.credentials.vault_format import VaultError
from palyra_fleet.wire.sealing import SealBroken


class VaultSource:
    """The values of one vault, by record name. `problem` is what refuses all of it, if anything."""

    def __init__(self, file: VaultFile) -> None:
        self.problem: str | None = None
        self._file = file
        self._opened: OpenVault | None = None
        self._looks: object = None

    def read(self, names: frozenset[str], until_monotonic_ms: int | None) -> Findings:
        """The records as the vault has them now."""
        try:
            opened = self._current()
        except (VaultError, OSError) as error:
            self.problem = str(error)
            return Findings(problems=dict.fromkeys(names, self.problem))
        self.problem = None
        held: dict[str, Held] = {}
        problems: dict[str, str] = {}
        for name in sorted(names):
            try:
                held[name] = Held(_value(opened, name, self._file), until_monotonic_ms)
            except (SecretUnusable, SealBroken) as error:
                problems[name] = str(error)
        return Findings(held, problems)

    def _current(self) -> OpenVault:
        looks = self._file.looks
        if self._opened is not None and looks == self._looks and self.problem is None:
            return self._opened
        opened = self._file.read()
        seen = self._opened.vault if self._opened is not None else opened.vault
        if seen.vault_id == opened.vault.vault_id and opened.vault.generation < seen.generation:
            raise VaultError(
                f"{self._file.path}: went back from generation {seen.generation} to"
                f" {opened.vault.generation}: an older file was put there; if that was you, start"
                " the proxy again"
            )
        self._opened, self._looks = opened, looks
        return opened


def _value(opened: OpenVault, name: str, file: VaultFile) -> SecretValue:
    if name not in opened.vault.facts:
        raise SecretUnusable(
            f"{file.path}: has no record {name}; set it with `palyra-egress vault set {name}`"
        )
    return secret_in(opened.vault.value(name, opened.key))
