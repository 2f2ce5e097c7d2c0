"""One program with all that comes of it, ended whole: TERM, two seconds, KILL, and looks until none
of it is there, for ten seconds at most: nothing can refuse KILL, but a busy machine takes its time.

A program that is not isolated runs below a *keeper*, a small process of ours to which the kernel
gives every descendant that loses its parent. So what belongs to the program is the tree below the
keeper; besides, every process of the program's group or session, and every process that carries the
lease's mark in its environment. Of an isolated program it is everything in its namespace. `end`
returns True only if none of them is alive, and the keeper was there to the end: a program that
killed it may have hidden something, and is reported as not ended. When the launcher dies, the
keeper ends the tree. Zombies are dead. Signals to single processes go through a pidfd, so that a
reused number is safe.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.tasks import spawn
from palyra_fleet.worker import keeper
from palyra_fleet.worker.keeper import look_at

GRACE_S: Final = 2.0
KILLED_WITHIN_S: Final = 10.0
ANSWERS_WITHIN_S: Final = 10.0
_POLL_S: Final = 0.02
_PROC: Final = Path("/proc")
_KEEPER: Final = Path(keeper.__file__).resolve()
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

    def kill(self) -> None:
        """Its first process, and by the kernel every other one there."""
        if self.descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

    def let_go(self) -> None:
        """Close the descriptor of a namespace that has ended."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(slots=True)
class Kept:
    """The launcher's end of a keeper: the program's number, a descriptor of it, and the line that
    says how it ended. `lost`: the keeper ended before it was `told` to, or did not answer in time:
    a program under the same account may stop or kill it."""

    keeper: asyncio.subprocess.Process
    program_pid: int
    descriptor: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lost: bool = False
    told: bool = False

    async def ended(self) -> int:
        """The program's exit code as `wait` gives it."""
        await self._until_the_program_has_ended()
        self._wake()
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                words = (await self.reader.readline()).split()
        except TimeoutError:
            words = []
        if len(words) != 2:
            self.lost = True
            return 128 + signal.SIGKILL
        code = os.waitstatus_to_exitcode(int(words[1]))
        return code if code >= 0 else 128 - code

    async def let_go(self) -> None:
        """Tell the keeper to end, once; what it does not do by itself is done to it."""
        if self.told:
            return
        self.lost = self.lost or self.keeper.returncode is not None
        self.told = True
        self._wake()
        self.writer.close()
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await self.keeper.wait()
        except TimeoutError:
            self.lost = True
            with contextlib.suppress(ProcessLookupError):
                self.keeper.kill()
            await self.keeper.wait()

    def _wake(self) -> None:
        if self.keeper.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.keeper.send_signal(signal.SIGCONT)

    async def _until_the_program_has_ended(self) -> None:
        if self.descriptor < 0:
            return
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self.descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(slots=True)
class ProcessGroup:
    """A started program. `mark` is the lease's id, as LEASE_MARK has it in the environment;
    `process` is its keeper, or what holds it in its namespace."""

    process: asyncio.subprocess.Process
    mark: str
    namespace: Namespace | None = None
    kept: Kept | None = None
    _code: asyncio.Future[int] | None = None

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        executable: Path,
        environment: Mapping[str, str],
        working_directory: Path | None,
    ) -> "ProcessGroup":
        """Start `executable` with these arguments (the first is its name). Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_KEEPER), str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                env={},
                cwd=working_directory,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            order = {
                "executable": str(executable),
                "arguments": list(arguments),
                "environment": dict(environment),
            }
            writer.write(json.dumps(order).encode() + b"\n")
            word, _, number = (await reader.readline()).decode().strip().partition(" ")
            if word != "started":
                code = int(number) if number else 0
                raise OSError(code, os.strerror(code) if code else "its keeper ended")
        except BaseException:
            writer.close()
            await process.wait()
            raise
        pid = int(number)
        kept = Kept(process, pid, _descriptor_of(pid), reader, writer)
        return cls(process, environment[LEASE_MARK], kept=kept)

    @property
    def leader(self) -> int:
        """The process whose group and session are the program's."""
        return self.process.pid if self.kept is None else self.kept.program_pid

    async def wait(self) -> int:
        """The exit code, 128+signal when a signal ended it. May be asked more than once."""
        if self.kept is None:
            code = await self.process.wait()
            return code if code >= 0 else 128 - code
        if self._code is None:
            self._code = spawn(self.kept.ended(), f"end of {self.mark}")
        return await asyncio.shield(self._code)

    async def end(self, first: signal.Signals = signal.SIGTERM, grace_s: float = GRACE_S) -> bool:
        """End everything that belongs to the program; True only if nothing is alive."""
        ended = await self._end_all(first, grace_s)
        if self.kept is not None:
            if ended:
                await self.wait()
            await self.kept.let_go()
            return ended and not self.kept.lost
        return ended

    async def _end_all(self, first: signal.Signals, grace_s: float) -> bool:
        for number, within_s in ((first, grace_s), (signal.SIGKILL, KILLED_WITHIN_S)):
            self._signal(number, spare_group=self.namespace is not None and number is first)
            if await self._gone_within(within_s, again=number is signal.SIGKILL):
                if self.namespace is not None:
                    await self.process.wait()
                    self.namespace.let_go()
                return True
        return False

    def survivors(self) -> tuple[int, ...]:
        """The ids of what belongs to the program and is alive. Of an isolated program that is also
        the first process of its namespace, with which every other one there ends."""
        if not _PROC.is_dir():
            return (self.leader,) if _group_exists(self.leader) else ()
        found = [pid for pid in _process_ids() if self._belongs(pid)]
        if self.namespace is not None and self.namespace.alive:
            found.append(self.namespace.first_pid)
        return tuple(dict.fromkeys(found))

    async def _gone_within(self, within_s: float, *, again: bool) -> bool:
        """Whether a look finds nothing alive; the last one begins after the time is up, so that a
        launcher that was held up itself does not tell of what ended meanwhile."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        while True:
            is_last = loop.time() >= end_s
            if not self.survivors():
                return True
            if is_last:
                return False
            await asyncio.sleep(_POLL_S)
            if again:  # a process forked between the look and the KILL
                self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals, *, spare_group: bool = False) -> None:
        """Signal everything. The group of an isolated program is what holds it, and is spared
        until the program had time to end by itself: with it everything inside is killed."""
        survivors = self.survivors()
        if not spare_group and any(_group_of(pid) == self.leader for pid in survivors):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.leader, number)
        if self.namespace is not None and number is signal.SIGKILL:
            self.namespace.kill()
        for pid in survivors:
            if _group_of(pid) != self.leader:
                self._signal_one(pid, number)

    def _signal_one(self, pid: int, number: signal.Signals) -> None:
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if self._belongs(pid):
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)

    def _belongs(self, pid: int) -> bool:
        found = look_at(pid)
        if found is None or pid == os.getpid():
            return False
        parent, group, session = found
        if self.leader in {group, session}:
            return True
        if self.kept is not None and _is_below(parent, self.process.pid):
            return True
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            return False
        return f"{LEASE_MARK}={self.mark}".encode() in environment.split(b"\0")


def _descriptor_of(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; -1 if it has."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1


def _is_below(pid: int, ancestor: int) -> bool:
    """Whether `pid` is `ancestor` or a descendant of it."""
    while pid > 1 and pid != ancestor:
        found = look_at(pid)
        if found is None:
            return False
        pid = found[0]
    return pid == ancestor


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
