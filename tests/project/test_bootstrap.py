"""`scripts/bootstrap` run for real, on a small project without dependencies (so without a network).

Each run gets a PATH that holds the few tools the script needs and only the interpreters the test
puts there, and a HOME of its own, so what this machine has does not matter.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = (
    *("cat", "cut", "dirname", "env", "flock", "grep", "ls"),
    *("rm", "sed", "sha256sum", "shasum", "sort", "tr"),
)

PYPROJECT = """\
[build-system]
requires = []
build-backend = "small_backend"
backend-path = ["."]

[project]
name = "palyra-egress-fleet"
version = "{version}"
"""

# What pip asks a build backend for in an editable install (PEP 660), and no more.
BACKEND = """\
import pathlib
import re
import zipfile


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    version = re.search('version = "(.*)"', pathlib.Path("pyproject.toml").read_text())[1]
    info = f"palyra_egress_fleet-{version}.dist-info"
    name = f"palyra_egress_fleet-{version}-py3-none-any.whl"
    files = {
        "small_project.py": f"def main(): print('small project {version}')",
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\\nName: palyra-egress-fleet\\nVersion: {version}\\n"
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{info}/entry_points.txt": "[console_scripts]\\npalyra-egress = small_project:main\\n",
    }
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        rows = "".join(f"{path},,\\n" for path in [*files, f"{info}/RECORD"])
        wheel.writestr(f"{info}/RECORD", rows)
    return name
"""


@dataclass(frozen=True, slots=True)
class SmallClone:
    """A clone with the real bootstrap script and a project that needs nothing."""

    folder: Path
    bin: Path

    @property
    def stamp(self) -> Path:
        return self.folder / ".venv" / ".bootstrap-stamp"

    def offer(self, name: str, script: str | None = None) -> None:
        """Put an interpreter on PATH: the one that runs this test, or a script."""
        if script is None:
            (self.bin / name).symlink_to(Path(sys.executable).resolve())
        else:
            (self.bin / name).write_text(script)
            (self.bin / name).chmod(0o755)

    def write_project(self, version: str) -> None:
        (self.folder / "pyproject.toml").write_text(PYPROJECT.format(version=version))

    def bootstrap(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "scripts" / "bootstrap"],
            env={"PATH": str(self.bin), "HOME": str(self.folder / "no home")} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def console_script(self) -> str:
        return subprocess.run(
            [self.folder / ".venv" / "bin" / "palyra-egress"],
            env={"PATH": str(self.bin)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> SmallClone:
    folder = tmp_path / "a folder with spaces" / "clone"
    for inner in ("scripts", "requirements"):
        (folder / inner).mkdir(parents=True)
    shutil.copy2(repository / "scripts" / "bootstrap", folder / "scripts" / "bootstrap")
    for lock in ("runtime.lock", "dev.lock"):
        (folder / "requirements" / lock).write_text("# nothing\n")
    (folder / "small_backend.py").write_text(BACKEND)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    small = SmallClone(folder, tools)
    small.write_project("1.0")
    return small


def test_without_any_interpreter_it_says_what_why_and_what_to_do(clone: SmallClone) -> None:
    ended = clone.bootstrap()
    assert ended.returncode == 2
    what, why, remedy = ended.stderr.splitlines()
    assert what == "bootstrap: no Python 3.13 or newer was found"
    assert why.startswith("  why: tried python3.13")
    assert remedy.startswith("  what to do: install one")
    assert "PALYRA_PYTHON" in remedy
    assert not (clone.folder / ".venv").exists()


def test_interpreters_that_are_too_old_or_do_not_run_do_not_count(clone: SmallClone) -> None:
    clone.offer(
        "python3.13", "#!/bin/sh\necho 'shim: python3.13: command not found' >&2\nexit 127\n"
    )
    clone.offer("python3", "#!/bin/sh\nexit 1\n")
    ended = clone.bootstrap()
    assert ended.returncode == 2
    assert "no Python 3.13 or newer was found" in ended.stderr


def test_a_named_interpreter_that_does_not_run_is_not_replaced_by_another(
    clone: SmallClone,
) -> None:
    clone.offer("python3.13")
    ended = clone.bootstrap(PALYRA_PYTHON=str(clone.folder / "absent"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("bootstrap: PALYRA_PYTHON does not suit: ")
    assert len(ended.stderr.splitlines()) == 3


def test_a_failing_shim_is_passed_over_and_foreign_pip_settings_do_no_harm(
    clone: SmallClone, tmp_path: Path
) -> None:
    clone.offer("python3.13", "#!/bin/sh\nexit 127\n")
    clone.offer("python3")
    elsewhere = tmp_path / "elsewhere"
    ended = clone.bootstrap(
        PIP_TARGET=str(elsewhere),
        PIP_USER="1",
        PIP_REQUIRE_HASHES="1",
        PIP_DRY_RUN="1",
        PIP_REQUIRE_VIRTUALENV="1",
        PYTHONPATH=str(elsewhere),
    )
    assert ended.returncode == 0, ended.stderr
    assert clone.console_script() == "small project 1.0\n"
    assert not elsewhere.exists()


def test_pyenv_is_asked_and_its_newest_suitable_version_is_taken(
    clone: SmallClone, tmp_path: Path
) -> None:
    root = tmp_path / "pyenv root"
    for version in ("3.13.0", "3.9.18", "2.7.18"):
        (root / "versions" / version / "bin").mkdir(parents=True)
    (root / "versions" / "3.13.0" / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    ended = clone.bootstrap(PYENV_ROOT=str(root))
    assert ended.returncode == 0, ended.stderr
    assert clone.console_script() == "small project 1.0\n"


def test_a_second_run_does_nothing_and_a_changed_project_is_installed_again(
    clone: SmallClone,
) -> None:
    clone.offer("python3.14")
    assert clone.bootstrap().returncode == 0
    made_at = clone.stamp.stat().st_mtime_ns
    again = clone.bootstrap()
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert clone.stamp.stat().st_mtime_ns == made_at

    kept = clone.folder / ".venv" / "kept"
    kept.touch()
    clone.write_project("2.0")
    assert clone.bootstrap().returncode == 0
    assert clone.console_script() == "small project 2.0\n"
    assert kept.exists()


def test_an_interrupted_environment_is_built_again_from_nothing(clone: SmallClone) -> None:
    clone.offer("python3")
    assert clone.bootstrap().returncode == 0
    half_written = clone.folder / ".venv" / "half-written"
    half_written.touch()
    clone.stamp.unlink()  # what an interrupted run leaves behind
    assert clone.bootstrap().returncode == 0
    assert not half_written.exists()
    assert clone.console_script() == "small project 1.0\n"


def test_a_run_that_fails_half_way_leaves_no_stamp(clone: SmallClone) -> None:
    clone.offer("python3")
    assert clone.bootstrap().returncode == 0
    assert clone.stamp.exists()
    clone.write_project("2.0")
    (clone.folder / "small_backend.py").write_text("raise SystemExit('broken')\n")
    ended = clone.bootstrap()
    assert ended.returncode == 69
    assert "bootstrap: the project itself could not be installed" in ended.stderr
    assert not clone.stamp.exists()
