"""Secrets in a KV server (`kv:mount/path#field`), kept fresh in the background.

`step` asks for what is due and says when the next is due; `keep` repeats it. A request is never
held up by it: what was learnt is in `findings`. A value is asked for again before its time is over;
when nothing confirmed it for too long, or its lease has ended, it is gone. An answer that says that
there is no such secret takes it away at once; a failure does not, and is tried again with growing
pauses. Times are monotonic milliseconds, Unix milliseconds where a name says so.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from palyra_egress.credentials.held import Findings, Held, SecretUnusable, secret_in
from palyra_egress.credentials.kv_client import (
    KvClient,
    KvFailure,
    KvMissing,
    KvSecret,
)
from palyra_egress.credentials.kv_settings import KvSettings

FIRST_PAUSE_MS: Final = 500
AT_ONCE: Final = 4


@dataclass(slots=True)
class _Entry:
    """One secret of the server, with as many references as it has bound fields."""

    due_ms: int
    failures: int = 0
    problem: str | None = None
    held: dict[str, Held] = field(default_factory=dict)
    field_problems: dict[str, str] = field(default_factory=dict)


class KvSource:
    """Follows the names it was told to want."""

    def __init__(
        self,
        settings: KvSettings,
        now_monotonic_ms: Callable[[], int],
        now_unix_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._now_ms = now_monotonic_ms
        self._now_unix_ms = now_unix_ms
        self._client = KvClient(settings)
        self._entries: dict[str, _Entry] = {}
        self._names: frozenset[str] = frozenset()
        self._wanted = asyncio.Event()
        self._asking = asyncio.Lock()

    def want(self, names: frozenset[str]) -> None:
        """Follow these names and no others."""
        if names == self._names:
            return
        self._names = names
        now = self._now_ms()
        before = self._entries
        self._entries = {}
        for path in {_path(name) for name in names}:
            self._entries[path] = before.get(path) or _Entry(due_ms=now)
        for path in self._entries.keys() & before.keys():
            if not self._fields(path) <= before[path].held.keys():
                self._entries[path].due_ms = now
        self._wanted.set()

    def findings(self) -> Findings:
        """What is known now, from memory; nothing of what was not asked for yet."""
        now = self._now_ms()
        held: dict[str, Held] = {}
        problems: dict[str, str] = {}
        for name in self._names:
            entry, wanted = self._entries[_path(name)], _field(name)
            found = entry.held.get(wanted)
            if found is not None and found.is_usable(now):
                held[name] = found
                continue
            problem = entry.field_problems.get(wanted, entry.problem)
            if problem is not None:
                problems[name] = problem
        return Findings(held, problems)

    async def keep(self, told: Callable[[], None]) -> None:
        """Repeat `step` for ever, and call `told` after each."""
        while True:
            self._wanted.clear()
            due_ms = await self.step()
            told()
            pause_s = 60.0 if due_ms is None else max(due_ms - self._now_ms(), 1) / 1000
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()

    async def step(self) -> int | None:
        """Ask for everything that is due; when the next will be."""
        async with self._asking:
            now = self._now_ms()
            due = [path for path, entry in self._entries.items() if entry.due_ms <= now]
            turns = asyncio.Semaphore(AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for path in due:
                    group.create_task(self._ask(path, turns))
        return min((entry.due_ms for entry in self._entries.values()), default=None)

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, path: str, turns: asyncio.Semaphore) -> None:
        entry = self._entries.get(path)
        if entry is None:
            return
        mount, _, rest = path.partition("/")
        async with turns:
            asked_ms = self._now_ms()
            try:
                found = await self._client.fetch(mount, rest, self._now_unix_ms())
            except KvMissing as missing:
                entry.held, entry.field_problems, entry.failures = {}, {}, 0
                entry.problem = str(missing)
                entry.due_ms = self._now_ms() + self._settings.refresh_ms
                return
            except KvFailure as failure:
                entry.problem = str(failure)
                pause_ms = FIRST_PAUSE_MS << min(entry.failures, 10)
                entry.due_ms = self._now_ms() + min(pause_ms, self._settings.refresh_ms)
                entry.failures += 1
                return
        self._learn(entry, path, found, asked_ms)

    def _learn(self, entry: _Entry, path: str, found: KvSecret, asked_ms: int) -> None:
        """Times count from when the server was asked: what it answered may be that old."""
        lives_ms = self._settings.max_age_ms
        if found.lives_ms is not None:
            lives_ms = min(lives_ms, found.lives_ms)
        entry.failures, entry.problem = 0, "its time was over before it was confirmed again"
        pause_ms = min(self._settings.refresh_ms, lives_ms // 2)
        entry.due_ms = asked_ms + max(pause_ms, FIRST_PAUSE_MS)
        entry.held, entry.field_problems = {}, {}
        for wanted in self._fields(path):
            try:
                value = secret_in(_text_of(found, wanted))
            except SecretUnusable as error:
                entry.field_problems[wanted] = str(error)
            else:
                entry.held[wanted] = Held(value, asked_ms + lives_ms)

    def _fields(self, path: str) -> set[str]:
        return {_field(name) for name in self._names if _path(name) == path}


def _text_of(found: KvSecret, wanted: str) -> str:
    if wanted not in found.fields:
        raise SecretUnusable(f"the secret has no text field {wanted}")
    return found.fields[wanted]


def _path(name: str) -> str:
    return name.partition("#")[0]


def _field(name: str) -> str:
    return name.partition("#")[2]
