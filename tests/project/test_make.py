"""The commands a newcomer types: `make` lists them, and the helper scripts never surprise."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def phony_targets(repository: Path) -> list[str]:
    makefile = (repository / "Makefile").read_text()
    (declared,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    return declared.split()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("arguments", [["help"], []])
def test_make_lists_every_target_with_one_line_each(
    repository: Path, phony_targets: list[str], arguments: list[str]
) -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = dict(line.split(maxsplit=1) for line in listed.splitlines())
    assert sorted(rows) == sorted(phony_targets)
    assert all(rows.values())


def test_every_target_of_the_makefile_is_declared_phony(
    repository: Path, phony_targets: list[str]
) -> None:
    makefile = (repository / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)
    assert sorted(targets) == sorted(phony_targets)


def test_continuous_integration_runs_what_the_readme_says(repository: Path) -> None:
    run = (repository / ".ci" / "run").read_text()
    readme = (repository / "README.md").read_text()
    for command in ("make check test", "make demo"):
        assert f"\n{command}\n" in run
        assert command in readme


def test_system_packages_names_what_is_missing_and_does_not_fail(
    repository: Path, tmp_path: Path
) -> None:
    for tool in ("cut", "tr", "id"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    ended = subprocess.run(
        [repository / "scripts" / "system-packages", "--check"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    assert "missing curl (Debian package curl)" in ended.stdout
    assert "missing ip (Debian package iproute2)" in ended.stdout
