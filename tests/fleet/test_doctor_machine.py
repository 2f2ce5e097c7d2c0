"""Mirror of doctor/machine.py: what is said of a process that serves."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from palyra_fleet.doctor.finding import Standing
from palyra_fleet.doctor.machine import core_files

SERVE = """
import resource, socket, sys
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
limit = hard if sys.argv[2] == "hard" else int(sys.argv[2]) if hard else 0
resource.setrlimit(resource.RLIMIT_CORE, (limit, hard))
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(sys.argv[1])
    listening.listen()
    print(limit, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["hard", "1", "0"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, int, int]]:
    """The socket of a process that serves, its number, and its limit of core files."""
    words = (sys.executable, "-c", SERVE, str(tmp_path / "s"), str(request.param))
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield tmp_path / "s", process.pid, int(process.stdout.readline())
        process.stdin.close()


def test_core_files_of_what_serves_are_a_fault(serving: tuple[Path, int, int]) -> None:
    socket, pid, limit = serving
    (found,) = core_files(socket)
    assert f"process {pid} " in found.what
    wanted = Standing.OK if limit in (0, 1) else Standing.FAIL
    assert found.standing is wanted and bool(found.remedy) == (wanted is Standing.FAIL)


def test_where_nothing_serves_nothing_is_wrong(tmp_path: Path) -> None:
    (found,) = core_files(tmp_path / "nobody")
    assert found.standing is Standing.OK
