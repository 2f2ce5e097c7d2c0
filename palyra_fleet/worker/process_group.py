"""One program in a session of its own, ended whole: TERM, two seconds, KILL, and then a look.

What belongs to the program: every process of its group or session, and, where the system shows it
(`/proc`), every process that still carries the lease's mark in its environment, so that a daemon
that made a session of its own is found too; of an isolated program, everything in its namespace.
`end` returns True only if none of them is alive.
Zombies are dead. Signals to single processes go through a pidfd, so that a reused number is safe.
"""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GRACE_S: Final = 2.0
_POLL_S: Final = 0.02
_PROC: Final = Path("/proc")
LEASE_MARK: Final = "PALYRA_LEASE_ID"


@dataclass(slots=True)
class Namespace:
    """The first process of a process namespace, held by a descriptor so that its number cannot be
    taken by another. When it is gone, the kernel has ended every other process there."""

    first_pid: int
    descriptor: int

    @classmethod
    def hold(cls, first_pid: int) -> "Namespace":
        """Raises OSError if there is no such process."""
        return cls(first_pid, os.pidfd_open(first_pid))

    @property
    def alive(self) -> bool:
        if self.descriptor < 0:
            return False
        ended, _, _ = select.select([self.descriptor], [], [], 0)
        return not ended

    def let_go(self) -> None:
        """Close the descriptor of a namespace that has ended."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(slots=True)
class ProcessGroup:
    """A started program. `mark` is the lease's id, as LEASE_MARK has it in the environment."""

    process: asyncio.subprocess.Process
    mark: str
    namespace: Namespace | None = None

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        executable: Path,
        environment: Mapping[str, str],
        working_directory: Path | None,
    ) -> "ProcessGroup":
        """Start `executable` with these arguments (the first is its name). Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *arguments,
            executable=executable,
            env=dict(environment),
            cwd=working_directory,
            start_new_session=True,
        )
        return cls(process, environment[LEASE_MARK])

    async def wait(self) -> int:
        """The exit code, 128+signal when a signal ended it."""
        code = await self.process.wait()
        return code if code >= 0 else 128 - code

    async def end(self, first: signal.Signals = signal.SIGTERM, grace_s: float = GRACE_S) -> bool:
        """End everything that belongs to the program; True only if nothing is alive."""
        for number in (first, signal.SIGKILL):
            self._signal(number, spare_group=self.namespace is not None and number is first)
            if await self._gone_within(grace_s, again=number is signal.SIGKILL):
                await self.process.wait()
                if self.namespace is not None:
                    self.namespace.let_go()
                return True
        return False

    def survivors(self) -> tuple[int, ...]:
        """The ids of what belongs to the program and is alive. Of an isolated program that is also
        the first process of its namespace, with which every other one there ends."""
        if not _PROC.is_dir():
            return (self.process.pid,) if _group_exists(self.process.pid) else ()
        found = [
            pid for pid in _process_ids() if _belongs(pid, self.process.pid, self.mark.encode())
        ]
        if self.namespace is not None and self.namespace.alive:
            found.append(self.namespace.first_pid)
        return tuple(dict.fromkeys(found))

    async def _gone_within(self, grace_s: float, *, again: bool) -> bool:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + grace_s
        while self.survivors():
            if loop.time() >= end_s:
                return False
            await asyncio.sleep(_POLL_S)
            if again:  # a process forked between the look and the KILL
                self._signal(signal.SIGKILL)
        return True

    def _signal(self, number: signal.Signals, *, spare_group: bool = False) -> None:
        """Signal everything. The group of an isolated program is what holds it, and is spared
        until the program had time to end by itself: with it everything inside is killed."""
        survivors = self.survivors()
        if not spare_group and any(_group_of(pid) == self.process.pid for pid in survivors):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
        for pid in survivors:
            if _group_of(pid) != self.process.pid:
                self._signal_one(pid, number)

    def _signal_one(self, pid: int, number: signal.Signals) -> None:
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if _belongs(pid, self.process.pid, self.mark.encode()):
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _process_ids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _belongs(pid: int, leader: int, mark: bytes) -> bool:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return False
    state, _parent, group, session = stat.rpartition(")")[2].split()[:4]
    if state in {"Z", "X"}:
        return False
    if leader in {int(group), int(session)}:
        return True
    if pid == os.getpid():
        return False
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return LEASE_MARK.encode() + b"=" + mark in environment.split(b"\0")
