"""All the places that bound secrets come from, as one `SecretLookup`.

Only what the policy in force names is read, so only that is in memory. `get` answers from memory;
`follow` and `refresh` bring the memory up to date, in a thread where files are read, and `keep`
does so for ever. What of a policy cannot be given at all is said by `policy_gate`.
Invariants: what could not be confirmed for `LOCAL_MAX_AGE_MS` (files and vault), or for as long as
its server allows, is gone; `version` grows with every change of what is held; no text, log or
`repr` holds a secret.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from palyra_egress.credentials.binding import (
    SecretRef,
    SecretSource,
    SecretValue,
)
from palyra_egress.credentials.held import Findings, Held, SecretUnusable, secret_in
from palyra_egress.credentials.kv_source import KvSource
from palyra_egress.credentials.secret_files import SecretDirectory
from palyra_egress.credentials.settings import SecretSettings
from palyra_egress.credentials.vault_file import VaultFile
from palyra_egress.credentials.vault_source import VaultSource
from palyra_egress.policy.compile import CompiledPolicy

LOCAL_MAX_AGE_MS: Final = 30_000
REFRESH_EVERY_S: Final = 0.5
FOLLOW_WAIT_S: Final = 1.0

_log = logging.getLogger(__name__)

type Names = Mapping[SecretSource, frozenset[str]]


class SecretSources:
    """The secrets this proxy holds right now. Made in the loop; nothing is read before `want`."""

    def __init__(
        self,
        state_dir: Path,
        settings: SecretSettings,
        now_monotonic_ms: Callable[[], int],
        now_unix_ms: Callable[[], int],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.version = 0
        self._settings = settings
        self._now_ms = now_monotonic_ms
        key_file = settings.master_key_file
        self._vault = VaultSource(VaultFile.in_directory(state_dir, key_file, environment))
        self._files = None if settings.directory is None else SecretDirectory(settings.directory)
        self._environment = _listed(settings.environment_names, environment)
        kv = settings.kv
        self._kv = None if kv is None else KvSource(kv, now_monotonic_ms, now_unix_ms)
        self._names: Names = {}
        self._local: dict[SecretRef, Held] = {}
        self._local_problems: dict[SecretRef, str] = {}
        self._held: dict[SecretRef, Held] = {}
        self.problems: Mapping[SecretRef, str] = {}
        self._reading = asyncio.Lock()

    # --- SecretLookup: from memory ---------------------------------------------------------------

    @property
    def allowed(self) -> frozenset[SecretSource]:
        return self._settings.allowed

    def get(self, ref: SecretRef) -> SecretValue | None:
        """The secret, unless it is missing, unusable, or was not confirmed for too long."""
        held = self._held.get(ref)
        return held.value if held is not None and held.is_usable(self._now_ms()) else None

    def values(self) -> Iterable[SecretValue]:
        """Every secret that is held, each once."""
        found: list[SecretValue] = []
        for held in self._held.values():
            if held.value not in found:
                found.append(held.value)
        return tuple(found)

    @property
    def problem(self) -> str | None:
        """What is not available, for people; None if everything that the policy names is."""
        found = [f"{ref}: {text}" for ref, text in sorted(self.problems.items())]
        return "; ".join(found) or None

    # --- bringing the memory up to date -----------------------------------------------------------

    def want(self, policy: CompiledPolicy) -> None:
        """Read what a policy names, and nothing else from now on. Blocking: for the start, before
        anything is served. What the KV server has is learnt by `keep`."""
        self._names = _names_of(policy)
        self._local, self._local_problems = self._read_local(self._names)
        if self._kv is not None:
            self._kv.want(self._names.get(SecretSource.KV, frozenset()))
        self._settle()

    async def follow(self, policy: CompiledPolicy, wait_s: float = FOLLOW_WAIT_S) -> None:
        """As `want`, just before a policy is put in force while others are served. The KV server
        is waited for a moment only: a policy may have to stop something."""
        async with self._reading:
            self._names = _names_of(policy)
            self._local, self._local_problems = await asyncio.to_thread(
                self._read_local, self._names
            )
            if self._kv is not None:
                self._kv.want(self._names.get(SecretSource.KV, frozenset()))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._kv.step()
            self._settle()

    async def refresh(self) -> None:
        """Look at files and vault again, and at what is known of the KV server."""
        async with self._reading:
            self._local, self._local_problems = await asyncio.to_thread(
                self._read_local, self._names
            )
            self._settle()

    async def keep(self) -> None:
        """Refresh for ever."""
        async with asyncio.TaskGroup() as group:
            if self._kv is not None:
                group.create_task(self._kv.keep(self._settle))
            while True:
                await asyncio.sleep(REFRESH_EVERY_S)
                await self.refresh()

    async def close(self) -> None:
        if self._kv is not None:
            await self._kv.close()

    def _read_local(self, names: Names) -> tuple[dict[SecretRef, Held], dict[SecretRef, str]]:
        until_ms = self._now_ms() + LOCAL_MAX_AGE_MS
        found: dict[SecretSource, Findings] = {}
        if names.get(SecretSource.VAULT):
            found[SecretSource.VAULT] = self._vault.read(names[SecretSource.VAULT], until_ms)
        if names.get(SecretSource.ENV):
            found[SecretSource.ENV] = _pick(self._environment, names[SecretSource.ENV])
        if self._files is not None and names.get(SecretSource.FILE):
            found[SecretSource.FILE] = self._files.read(names[SecretSource.FILE], until_ms)
        return _by_reference(found)

    def _settle(self) -> None:
        """Make what was learnt the answer, and tell what is new in it."""
        held, problems = dict(self._local), dict(self._local_problems)
        if self._kv is not None:
            more, wrong = _by_reference({SecretSource.KV: self._kv.findings()})
            held |= more
            problems |= wrong
        now = self._now_ms()
        held = {ref: one for ref, one in held.items() if one.is_usable(now)}
        if _values(held) != _values(self._held):
            self.version += 1
        self._held = held
        for ref in sorted(problems.keys() - self.problems.keys()):
            _log.error("%s is not available: %s", ref, problems[ref])
        for ref in sorted(self.problems.keys() & held.keys()):
            _log.info("%s is available again", ref)
        self.problems = problems


def _names_of(policy: CompiledPolicy) -> Names:
    """Every reference of a policy, by source."""
    found: dict[SecretSource, set[str]] = {}
    for ref in policy.secrets:
        found.setdefault(ref.source, set()).add(ref.name)
    return {source: frozenset(names) for source, names in found.items()}


def _listed(names: frozenset[str], environment: Mapping[str, str]) -> Findings:
    """The listed variables, as they are now."""
    held: dict[str, Held] = {}
    problems: dict[str, str] = {}
    for name in sorted(names):
        given = environment.get(name)
        try:
            if given is None:
                raise SecretUnusable("the variable is not set")
            held[name] = Held(secret_in(given))
        except SecretUnusable as error:
            problems[name] = str(error)
    return Findings(held, problems)


def _pick(found: Findings, names: frozenset[str]) -> Findings:
    held = {name: found.held[name] for name in names & found.held.keys()}
    problems = {
        name: found.problems.get(name, "the variable is not listed") for name in names - held.keys()
    }
    return Findings(held, problems)


def _by_reference(
    found: Mapping[SecretSource, Findings],
) -> tuple[dict[SecretRef, Held], dict[SecretRef, str]]:
    held: dict[SecretRef, Held] = {}
    problems: dict[SecretRef, str] = {}
    for source, findings in found.items():
        held |= {SecretRef(source, name): one for name, one in findings.held.items()}
        problems |= {SecretRef(source, name): text for name, text in findings.problems.items()}
    return held, problems


def _values(held: Mapping[SecretRef, Held]) -> dict[SecretRef, SecretValue]:
    return {ref: one.value for ref, one in held.items()}
