"""A place for one isolated program, without a fleet: what tests of isolation run programs in."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.ordinary_account import OrdinaryAccount
from tests.fleet.worker.isolation import run_inside

REPOSITORY = Path(__file__).resolve().parents[4]
UNAVAILABLE = 99


@dataclass(frozen=True, slots=True)
class Cell:
    """A place to work, and whose program works there."""

    account: OrdinaryAccount
    workspace: Path
    project: Path
    hidden: Path

    def run(
        self,
        *command: str,
        stdin: object = subprocess.DEVNULL,
        proven: bool = False,
        before: tuple[str, ...] = (),
    ) -> tuple[int, str, str]:
        """Exit code, output and errors of an isolated program; `before` are the words before the
        command that runs it."""
        asked = {
            "workspace": str(self.workspace),
            "directory": str(self.project),
            "hidden": [str(self.hidden)],
            "command": command,
            "proven": proven,
        }
        words = (*before, sys.executable, run_inside.__file__, json.dumps(asked))
        done = subprocess.run(
            (*self.account.prefix, *words),
            cwd=REPOSITORY,
            env=self.account.environment() | {"PYTHONPATH": str(REPOSITORY)},
            stdin=stdin,  # type: ignore[call-overload]
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr


def cell_in(account: OrdinaryAccount) -> Cell:
    workspace, project, hidden = (
        account.directory / name for name in ("workspace", "project", "hidden")
    )
    workspace.mkdir()
    project.mkdir()
    hidden.write_text("secret")
    account.owns(workspace, project, hidden)
    return Cell(account, workspace, project, hidden)
