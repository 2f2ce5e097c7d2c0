"""`palyra-fleet serve` as a process of its own, and the command line against it."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = (sys.executable, "-m", "palyra_fleet.cli.main")


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs the command line with one PALYRA_HOME."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PALYRA_")}
        return {**kept, "PALYRA_HOME": str(self.home), "COLUMNS": "100"}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *PROGRAM,
            *arguments,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str) -> Said:
        process = await self.start(*arguments)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    with tempfile.TemporaryDirectory(prefix="home-") as directory:
        yield Shell(Path(directory))


@pytest.fixture
async def served(shell: Shell) -> AsyncIterator[Shell]:
    """A shell whose home has a running fleet."""
    async with running(shell):
        yield shell


@asynccontextmanager
async def running(shell: Shell, *more: str) -> AsyncIterator[dict[str, str]]:
    """A fleet in the shell's home until the block ends, started with `more` arguments; what it
    said of where it is, by name."""
    process = await shell.start("serve", "--admin", "127.0.0.1:0", *more)
    assert process.stderr is not None
    said: dict[str, str] = {}
    async for line in process.stderr:
        name, _, value = line.decode().strip().partition(":")
        said[name] = value.strip()
        if name == "operator token":
            break
    else:
        raise AssertionError("the fleet did not start")
    try:
        yield said
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert err.endswith(b"stopping\n") and b"Traceback" not in err, err.decode()
