"""The tutorial and guides, step by step as they are written, each in an installation of its own.

A `console` block is commands after `$ ` and what they print; `…` matches anything, and a line that
is `…` alone any number of lines. Ports are replaced by free ones, `var/` and `backup/` by folders
of the test, in commands and in what they print, which is all that is changed.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.programs import Programs, programs
from tests.fakes.free_port import free_port
from tests.fakes.until import until
from tests.project.documents import Block, blocks, steps

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = {
    "docs/tutorial.md": 8,
    "docs/how-to/back-up-and-restore.md": 10,
    "docs/how-to/change-a-policy.md": 11,
    "docs/how-to/investigate-a-quarantine.md": 14,
    "docs/how-to/join-a-node.md": 9,
    "docs/how-to/join-a-second-proxy.md": 8,
    "docs/how-to/rotate-the-ca.md": 6,
    "docs/how-to/run-a-pool-of-waiting-workers.md": 9,
}
"""How many commands each has at least."""
ENDS = "ends what runs"
BACKGROUND = re.compile(r"background until: (?P<said>.*)")
PORT = re.compile(r"127\.0\.0\.1:(\d+)")
IN_SIGHT = ("available", "(?:available|offline)")  # a slow machine's beats may have come too late


@dataclass(slots=True)
class Here:
    """Where a page is run: its folder, and a free port for each that it names."""

    home: Path
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name[:7] != "PALYRA_"}
        return {**kept, "PALYRA_HOME": str(self.home)}

    def moved(self, words: str) -> str:
        """A command, or what it prints, of a page."""
        words = re.sub(r"(?<![\w/.])(var|backup)/", rf"{self.home.parent}/\1/", words)
        return PORT.sub(lambda found: f"127.0.0.1:{self._port(found[1])}", words)

    def _port(self, named: str) -> int:
        if named not in self.ports:
            self.ports[named] = free_port()
        return self.ports[named]


def pattern(lines: list[str]) -> re.Pattern[str]:
    parts = [
        r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r" *\n"
        for line in lines
    ]
    return re.compile("".join(parts).replace(*IN_SIGHT))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("page", "least"), PAGES.items())
async def test_a_page_goes_as_it_says(tmp_path: Path, curl: str, page: str, least: int) -> None:
    here, ran = Here(tmp_path / "var"), 0
    here.home.mkdir()
    async with programs() as registry:
        for block in blocks(REPOSITORY / page):
            if found := BACKGROUND.fullmatch(block.marker):
                await start(registry, block, found["said"], here)
            elif block.marker == ENDS:
                await registry.end_all()
                registry.started.clear()
            elif block.language == "console":
                for command, expected in steps(block):
                    done = await registry.finished(
                        *("sh", "-c", f"{{ {here.moved(command)}\n}} 2>&1"),
                        environment=here.environment,
                        directory=REPOSITORY,
                        within_s=120,
                    )
                    printed = pattern([here.moved(line) for line in expected])
                    assert printed.fullmatch(done.out), f"{command}\n{done.out}"
                    ran += 1
    assert ran >= least


async def start(registry: Programs, block: Block, until_it_says: str, here: Here) -> None:
    (command,) = block.text.splitlines()
    if "palyra-egress up" in command:  # listens where it always does
        command += " --listen 127.0.0.1:8080 --admin 127.0.0.1:8081"
    started = await registry.start(
        *("sh", "-c", f"exec {here.moved(command)}"),
        environment=here.environment,
        directory=REPOSITORY,
    )
    await until(
        f"{command} says {until_it_says}",
        lambda: until_it_says in started.out.text + started.err.text,
    )
