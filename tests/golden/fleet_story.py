"""What the stories of `palyra-fleet` have in common: commands asked for JSON, and machines that ask
to pair."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.fakes.until import until
from tests.fleet.cli.conftest import PROGRAM, Shell
from tests.golden.transcript import Transcript

WORKER: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
BECAUSE: Final = ("--reason", "sample")


class Story(Transcript):
    """Commands of `palyra-fleet`, asked for JSON."""

    async def tell(self, *command: str, code: int = 0) -> str:
        """Run it in a thread, since the story's proxy runs in this loop; what it put out. What was
        done is answered as JSON, also where people get a sentence."""
        found = await asyncio.to_thread(self, "palyra-fleet", *command, "-o", "json")
        assert found[0] == code, found
        assert code or json.loads(found[1]) is not None, found
        return found[1]

    async def aside(self, *command: str) -> str:
        """Run what the story needs and does not tell; what it put out."""
        code, out, err = await asyncio.to_thread(self.quietly, "palyra-fleet", *command)
        assert code == 0, err
        return out.strip()

    async def first(self, of: str, state: str, *listing: str) -> str:
        """The field `of` of the first in this list that is in this state, once there is one."""

        async def look() -> str:
            found = json.loads(await self.aside(*listing, "-o", "json"))
            return next((str(one[of]) for one in found if one["state"] == state), "")

        return await until(f"{' '.join(listing)}: {state}", look)

    async def wants_to_pair(self) -> str:
        """The approval that a machine waits for."""
        return await self.first("approval_id", "pending_approval", "node", "requests")


@pytest.fixture
def story(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Story:
    """A story whose commands find the fleet in the shell's home."""
    monkeypatch.setenv("PALYRA_HOME", str(shell.home))
    return Story(capsys, {str(shell.home): "<home>"})


@asynccontextmanager
async def pairing(
    shell: Shell, said: dict[str, str], code: str, *more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`node install` on the same machine, with the code on its standard input and `more` arguments;
    `said` is what the fleet said of where it is."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *("node", "install", "--enrolment", said["nodes that enrol"], "--node", said["nodes"]),
        *("--ca", said["the nodes' root"], *more),
        env=shell.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(code.encode())
    process.stdin.close()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
