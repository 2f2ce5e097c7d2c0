"""docs/tutorial.md, step by step as it is written, in an installation of its own.

A `console` block is commands after `$ ` and what they print; `…` matches anything, and a line that
is `…` alone any number of lines. Ports are replaced by free ones, which is all that is changed.
"""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.programs import Programs, programs
from tests.fakes.free_port import free_port
from tests.project.documents import Block, blocks

REPOSITORY = Path(__file__).parent.parent.parent
PAGE = REPOSITORY / "docs" / "tutorial.md"
BACKGROUND = re.compile(r"background until: (?P<said>.*)")
IN_SIGHT = ("available", "(?:available|offline)")  # a slow machine's beats may have come too late


def free_address() -> str:
    return f"127.0.0.1:{free_port()}"


def steps(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, with the lines it should print."""
    command: str | None = None
    lines: list[str] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command is not None:
                yield command, lines
            command, lines = line.removeprefix("$ "), []
        else:
            lines.append(line)
    assert command is not None, f"{block.place}: no command"
    yield command, lines


def pattern(lines: list[str]) -> re.Pattern[str]:
    parts = [
        r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r" *\n"
        for line in lines
    ]
    return re.compile("".join(parts).replace(*IN_SIGHT))


@pytest.mark.timeout(600)
async def test_the_tutorial_goes_as_it_says(tmp_path: Path, curl: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PALYRA_")}
    environment = {**kept, "PALYRA_HOME": str(tmp_path / "var")}
    ran = 0
    async with programs() as registry:
        for block in blocks(PAGE):
            if found := BACKGROUND.fullmatch(block.marker):
                await start(registry, block, found["said"], environment)
            elif block.language == "console":
                for command, expected in steps(block):
                    done = await registry.finished(
                        *("sh", "-c", f"{command} 2>&1"),
                        environment=environment,
                        directory=REPOSITORY,
                        within_s=120,
                    )
                    assert pattern(expected).fullmatch(done.out), f"{command}\n{done.out}"
                    ran += 1
    assert ran >= 8


async def start(
    registry: Programs, block: Block, until_it_says: str, environment: dict[str, str]
) -> None:
    (command,) = block.text.splitlines()
    places = ("--listen", free_address(), "--admin", free_address())
    started = await registry.start(
        *shlex.split(command), *places, environment=environment, directory=REPOSITORY
    )
    await started.says(until_it_says, within_s=120)
