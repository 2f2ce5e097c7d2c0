"""Which sources of secrets an installation has. Pure.

The sealed vault of the state directory always is one; mounted files, variables and a KV server only
where they are set up here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_egress.credentials.binding import SECRET_NAMES, SecretSource
from palyra_egress.credentials.kv_settings import KvSettings
from palyra_egress.errors import OperatorMustAct
from palyra_fleet.wire.sealing import ENVIRONMENT_NAME

_VARIABLE: Final = re.compile(SECRET_NAMES[SecretSource.ENV], re.ASCII)


class SecretSettingsRefused(OperatorMustAct):
    """A source of secrets is set up in a way that cannot work."""


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """Which sources policies may name.

    `directory` holds mounted files. `environment_names` are the variables that may be named; they
    are read once, at start. `master_key_file` is where the vault's key lies, if not beside it.
    """

    master_key_file: Path | None = None
    directory: Path | None = None
    environment_names: frozenset[str] = frozenset()
    kv: KvSettings | None = None

    @property
    def allowed(self) -> frozenset[SecretSource]:
        """The sources that are configured. The vault always is."""
        is_configured = {
            SecretSource.VAULT: True,
            SecretSource.FILE: self.directory is not None,
            SecretSource.ENV: bool(self.environment_names),
            SecretSource.KV: self.kv is not None,
        }
        return frozenset(source for source in SecretSource if is_configured[source])

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where secrets lie, besides the state directory. The places of single files are not among
        them: their directories may hold what workers need."""
        return () if self.directory is None else (self.directory,)


VAULT_ONLY: Final = SecretSettings()


@dataclass(frozen=True, slots=True)
class KvChoices:
    """What an operator says about a KV server; nothing where there is none."""

    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    namespace: str | None = None
    version_1_mounts: frozenset[str] = frozenset()


def secret_settings(
    master_key_file: Path | None,
    directory: Path | None,
    environment_names: Iterable[str],
    kv: KvChoices,
) -> SecretSettings:
    """The settings that an operator's choices make. Raises SecretSettingsRefused."""
    names = frozenset(environment_names)
    for name in sorted(names):
        if _VARIABLE.fullmatch(name) is None:
            raise SecretSettingsRefused(
                "a listed variable has no name that policies can write; expected letters, digits"
                " and _ (the name alone, never its value)"
            )
    if ENVIRONMENT_NAME in names:
        raise SecretSettingsRefused(
            f"{ENVIRONMENT_NAME} is the key of the vault and never a credential"
        )
    return SecretSettings(master_key_file, directory, names, _kv(kv))


def _kv(chosen: KvChoices) -> KvSettings | None:
    if chosen == KvChoices():
        return None
    if chosen.url is None or chosen.token_file is None:
        raise SecretSettingsRefused(
            "a KV server needs its address and a file with a token: both, or neither"
        )
    return KvSettings(
        chosen.url, chosen.token_file, chosen.ca_file, chosen.namespace, chosen.version_1_mounts
    )
