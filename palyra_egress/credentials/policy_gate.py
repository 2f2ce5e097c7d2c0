"""Which policies may be in force here, by the secrets that they bind.

A policy is refused that names what this installation cannot give at all, for a rule or a canary: a
source that is not configured, a variable that is not listed, a vault that is missing or does not
open. The refusal has a line for each, with file and line and what to do. A single secret that is
not there is no refusal: rules that bind it refuse their requests (`credential_unavailable`), and
the others go on; only a canary that is not there stops everything, because nobody can look for it.
Blocking; `PolicyFile` asks it in a thread.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from palyra_egress.credentials.binding import SecretRef, SecretSource
from palyra_egress.credentials.settings import SecretSettings
from palyra_egress.credentials.vault_file import VaultFile
from palyra_egress.credentials.vault_format import VaultError
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.live import PassingRefusal, told_of
from palyra_egress.policy.load import PolicyFiles, look

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

    def look(self, _paths: Iterable[Path]) -> object:
        """A vault that is made or mended makes a policy good."""
        return look(self._vault.path), look(self._vault.key_path)

    def refusal(self, _files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        """Every binding that cannot be satisfied here, a line each."""
        named = [
            (rule.file, rule.line, f"the rule {rule.rule_id} binds {binding}", binding.secret)
            for rule in policy.rules.values()
            for binding in rule.credentials
        ]
        named += [
            (one.file, one.line, f"the canary {one.rule_id} is {one.secret}", one.secret)
            for one in policy.canaries.values()
            if one.secret is not None
        ]
        vault_problem = self._vault_problem(policy)
        found = []
        for file, line, what, ref in sorted(named):
            problem = self._problem(ref)
            if problem is None and ref.source is SecretSource.VAULT:
                problem = vault_problem
            if problem is not None:
                found.append(f"{file}:{line}: {what}: {problem}")
        told = "\n".join(found)
        return PassingRefusal(told) if isinstance(vault_problem, PassingRefusal) else told or None

    def _problem(self, ref: SecretRef) -> str | None:
        if ref.source not in self._settings.allowed:
            return f"the source `{ref.source.value}` is not configured; {_CONFIGURE[ref.source]}"
        if ref.source is SecretSource.ENV and ref.name not in self._settings.environment_names:
            return f"the variable is not listed; {_CONFIGURE[ref.source]}"
        return None

    def _vault_problem(self, policy: CompiledPolicy) -> str | None:
        """Why the vault gives nothing, if the policy names any of it."""
        if SecretSource.VAULT not in {ref.source for ref in policy.secrets}:
            return None
        try:
            self._vault.read()
        except (VaultError, OSError) as error:
            return told_of(error)
        return None
