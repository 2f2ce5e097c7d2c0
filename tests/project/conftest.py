"""The clone under test: where it lies, and which files git tracks in it."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tracked_files(repository: Path) -> tuple[Path, ...]:
    """Every tracked file that exists; skips where the project is not a git checkout."""
    if shutil.which("git") is None or not (repository / ".git").exists():
        pytest.skip("the rules of tracked files need git and a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True
    ).stdout
    names = listed.decode().split("\0")
    return tuple(repository / name for name in names if name and (repository / name).is_file())
