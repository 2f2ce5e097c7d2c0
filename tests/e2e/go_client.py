"""Go's own client, built where a Go is installed; nothing is fetched for it."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).with_name("go_client.go")
BUILT_WITHIN_S: Final = 300.0


async def go_client(directory: Path) -> str:
    """The program; skips the test where there is no Go."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed here, so this client was not tried")
    program = directory / "go-client"
    building = await asyncio.create_subprocess_exec(
        *(go, "build", "-o", program, SOURCE),
        env={**os.environ, "GOPROXY": "off", "GO111MODULE": "off"},
    )
    async with asyncio.timeout(BUILT_WITHIN_S):
        assert await building.wait() == 0
    return str(program)
