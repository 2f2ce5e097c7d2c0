"""Programs as real child processes, each ended by its own id whatever happens to the test.

`programs()` is the registry: what is started through it is asked to end when the block ends
(TERM), and killed if it does not. Output is read as it comes, so that a test reacts at once and no
pipe fills up. Every wait has a deadline.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from palyra_fleet.tasks import spawn

WITHIN_S = 60.0
_GRACE_S = 8.0


class Output:
    """What a program wrote to one stream, as it comes."""

    def __init__(self, stream: asyncio.StreamReader, name: str) -> None:
        self._data = bytearray()
        self._grew = asyncio.Event()
        self.reading = spawn(self._read(stream), name)

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace")

    async def line(self, number: int) -> str:
        """The line with this number, from 0, once it is complete."""
        while self._data.count(b"\n") <= number:
            await self._more()
        return self.text.split("\n")[number]

    async def holds(self, text: str) -> None:
        while text not in self.text:
            await self._more()

    async def _more(self) -> None:
        """Wait for more output. Raises EOFError when there will be none."""
        if self.reading.done():
            raise EOFError
        self._grew.clear()
        await self._grew.wait()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        try:
            while chunk := await stream.read(65536):
                self._data += chunk
                self._grew.set()
        finally:
            self._grew.set()


@dataclass(slots=True)
class Program:
    """One started program."""

    process: asyncio.subprocess.Process
    out: Output
    err: Output

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within_s: float = WITHIN_S) -> int:
        """The exit code, with all output read. Negative when a signal ended it."""
        try:
            async with asyncio.timeout(within_s):
                code = await self.process.wait()
                await asyncio.gather(self.out.reading, self.err.reading)
        except TimeoutError:
            raise AssertionError(f"did not end within {within_s:g} s: {self}") from None
        return code

    async def says(self, text: str, within_s: float = WITHIN_S) -> None:
        """Wait for a text on stdout."""
        await self._within(self.out.holds(text), text, within_s)

    async def line(self, number: int, within_s: float = WITHIN_S) -> str:
        """Wait for a line of stdout."""
        found: list[str] = []

        async def read() -> None:
            found.append(await self.out.line(number))

        await self._within(read(), f"line {number}", within_s)
        return found[0]

    async def kill(self) -> None:
        """End it with SIGKILL, as a power failure would."""
        self.process.kill()
        await self.ended()

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def close_input(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()

    async def _within(self, waiting: Awaitable[None], what: str, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await waiting
        except TimeoutError:
            raise AssertionError(f"{what!r} did not come within {within_s:g} s: {self}") from None
        except EOFError:
            code = await self.ended()
            raise AssertionError(f"ended with {code} before {what!r} came: {self}") from None

    def __str__(self) -> str:
        return f"stdout: {self.out.text}\nstderr: {self.err.text}"


@dataclass(slots=True)
class Programs:
    """Everything a test has started. `prefix` are words before every command."""

    prefix: tuple[str, ...] = ()
    started: list[Program] = field(default_factory=list)

    async def start(
        self,
        *command: str | Path,
        environment: Mapping[str, str],
        directory: Path | None = None,
        with_input: bool = False,
    ) -> Program:
        process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *map(str, command),
            stdin=asyncio.subprocess.PIPE if with_input else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd=directory,
        )
        assert process.stdout is not None and process.stderr is not None
        name = Path(command[0]).name
        program = Program(
            process,
            Output(process.stdout, f"stdout of {name}"),
            Output(process.stderr, f"stderr of {name}"),
        )
        self.started.append(program)
        return program

    async def finished(
        self,
        *command: str | Path,
        environment: Mapping[str, str],
        directory: Path | None = None,
        within_s: float = WITHIN_S,
    ) -> "Finished":
        """Start a program and wait for its end."""
        program = await self.start(*command, environment=environment, directory=directory)
        code = await program.ended(within_s)
        return Finished(code, program.out.text, program.err.text)

    async def end_all(self) -> None:
        """End what is still running, youngest first: ask, wait, kill."""
        for program in reversed(self.started):
            await _end(program)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


async def _end(program: Program) -> None:
    program.close_input()
    if program.process.returncode is None:
        program.process.send_signal(signal.SIGCONT)
        program.process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            await program.process.wait()
    if program.process.returncode is None:
        program.process.kill()
        await program.process.wait()
    for output in (program.out, program.err):
        output.reading.cancel()
    await asyncio.gather(program.out.reading, program.err.reading, return_exceptions=True)


@asynccontextmanager
async def programs(prefix: tuple[str, ...] = ()) -> AsyncIterator[Programs]:
    registry = Programs(prefix)
    try:
        yield registry
    finally:
        await registry.end_all()
