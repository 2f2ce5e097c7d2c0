"""Which policies may be in force here, by the secrets that they bind.

A policy is refused whose rules bind what this installation cannot give at all: a source that is not
configured, a variable that is not listed, a vault that is missing or does not open. The refusal has
a line for each binding, with the rule's file and line and what to do. A single secret that is not
there is no refusal: rules that bind it refuse their requests (`credential_unavailable`), and the
others go on. Blocking; `PolicyFile` asks it in a thread.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from palyra_egress.credentials.binding import SecretRef, SecretSource
from palyra_egress.credentials.settings import SecretSettings
from palyra_egress.credentials.vault_file import VaultFile
from palyra_egress.credentials.vault_format import VaultError
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.load import PolicyFiles

_CONFIGURE: Final = {
    SecretSource.FILE: "name its directory with --secrets-dir",
    SecretSource.ENV: "list the variable with --secret-env",
    SecretSource.KV: "name the server with --kv-url and --kv-token-file",
}


class SecretGate:
    """A `PolicyGate`; remembers nothing."""

    def __init__(
        self,
        state_dir: Path,
        settings: SecretSettings,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._vault = VaultFile.in_directory(state_dir, settings.master_key_file, environment)

    @property
    def watched(self) -> tuple[Path, ...]:
        """A vault that is made or mended makes a policy good."""
        return self._vault.path, self._vault.key_path

    def refusal(self, _files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        """Every binding that cannot be satisfied here, a line each."""
        found = []
        vault_problem = self._vault_problem(policy)
        for rule in sorted(policy.rules.values(), key=lambda rule: (rule.file, rule.line)):
            for binding in rule.credentials:
                problem = self._problem(binding.secret)
                if problem is None and binding.secret.source is SecretSource.VAULT:
                    problem = vault_problem
                if problem is not None:
                    place = f"{rule.file}:{rule.line}"
                    found.append(f"{place}: the rule {rule.rule_id} binds {binding}: {problem}")
        return "\n".join(found) or None

    def _problem(self, ref: SecretRef) -> str | None:
        if ref.source not in self._settings.allowed:
            return f"the source `{ref.source.value}` is not configured; {_CONFIGURE[ref.source]}"
        if ref.source is SecretSource.ENV and ref.name not in self._settings.environment_names:
            return f"the variable is not listed; {_CONFIGURE[ref.source]}"
        return None

    def _vault_problem(self, policy: CompiledPolicy) -> str | None:
        """Why the vault gives nothing, if a rule binds any of it."""
        sources = {one.secret.source for rule in policy.rules.values() for one in rule.credentials}
        if SecretSource.VAULT not in sources:
            return None
        try:
            self._vault.read()
        except (VaultError, OSError) as error:
            return str(error)
        return None
