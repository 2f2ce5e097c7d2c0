"""What a crash reaches, by what core_pattern says and how high the limit may be."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from palyra_fleet.worker.isolation.canary import core_dumps_outcome
from palyra_fleet.worker.isolation.core_dumps import core_dump_problem, keep_crashes_inside
from tests.fakes.process_limits import core_limit_may_be_1
from tests.fleet.worker.isolation.cell import REPOSITORY, UNAVAILABLE, Cell

ONE, NONE = (1, 1), (0, 0)
OTHERS = [(0, 1), (0, -1), (1, -1), (4096, 4096), (-1, -1)]
APPORT = "|/usr/share/apport/apport -p%p -s%s"
SOCKETS = ["@/run/cores.socket", "@@/run/cores.socket"]


@pytest.mark.parametrize("pattern", ["core", "/var/crash/core.%p", "", "%h|core"])
@pytest.mark.parametrize("limits", [ONE, NONE])
def test_a_file_keeps_a_crash_inside_at_1_and_at_0(pattern: str, limits: tuple[int, int]) -> None:
    assert core_dump_problem(pattern, limits) == ""


def test_a_program_is_not_started_at_1() -> None:
    assert core_dump_problem(APPORT, ONE) == ""


def test_a_program_is_started_at_0_so_nothing_is_isolated() -> None:
    said = core_dump_problem(APPORT, NONE)
    assert said.startswith("kernel.core_pattern names a program, which a crash would start outside")
    assert "raise it to 1 or more (LimitCORE=1, ulimit -Hc)" in said


@pytest.mark.parametrize("pattern", SOCKETS)
@pytest.mark.parametrize("limits", [ONE, NONE, *OTHERS])
def test_a_socket_is_reached_at_any_limit(pattern: str, limits: tuple[int, int]) -> None:
    assert "names a socket" in core_dump_problem(pattern, limits)


@pytest.mark.parametrize("pattern", ["core", APPORT, ""])
@pytest.mark.parametrize("limits", OTHERS)
def test_any_other_limit_is_refused(pattern: str, limits: tuple[int, int]) -> None:
    assert "could not be set to 1" in core_dump_problem(pattern, limits)


def test_a_pattern_that_nobody_can_read_is_refused() -> None:
    assert "cannot be read" in core_dump_problem(None, ONE)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("core\n", {ONE: "", NONE: ""}),
        (f"{APPORT}\n", {ONE: "", NONE: "names a program"}),
        (" @/run/x\n", {ONE: "a socket", NONE: "a socket"}),
    ],
)
def test_a_process_gets_the_limit_and_the_kernels_setting_is_read(
    tmp_path: Path, written: str, said: dict[tuple[int, int], str]
) -> None:
    (tmp_path / "core_pattern").write_text(written)
    limit = ONE if core_limit_may_be_1() else NONE
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        found = keep_crashes_inside(process.pid, tmp_path)
        assert said[limit] in found and bool(said[limit]) == bool(found)
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == limit
        process.communicate()


def test_a_kernel_without_core_dumps_has_no_pattern_and_one_without_settings_is_not_known(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as process:
        assert keep_crashes_inside(process.pid, tmp_path) == ""
        assert "cannot be read" in keep_crashes_inside(process.pid, tmp_path / "none")
        (tmp_path / "core_pattern").mkdir()
        assert "cannot be read" in keep_crashes_inside(process.pid, tmp_path)
        process.communicate()


@pytest.mark.parametrize(
    ("pattern", "limits", "holds"),
    [
        ("core", [["1", "1"], ["1", "1"]], True),
        ("core", [["0", "0"], ["0", "0"]], True),
        ("core", [["0", "unlimited"], ["1", "1"]], False),  # the first process may be raised
        ("core", [["1", "1"], ["4096", "4096"]], False),
        ("|/sbin/x", [["1", "1"], ["1", "1"]], True),
        ("|/sbin/x", [["0", "0"], ["0", "0"]], False),
        ("|/sbin/x", [["1", "1"], ["0", "1"]], False),  # lowered, and so a handler is started
        ("|/sbin/x", [["0", "unlimited"], ["1", "1"]], False),
        ("@/run/x", [["1", "1"], ["1", "1"]], False),
        ("", [["1", "1"], ["1", "1"]], True),
    ],
)
def test_the_canary_holds_limits_against_the_pattern(
    pattern: str, limits: list[list[str]], holds: bool
) -> None:
    assert core_dumps_outcome(pattern, limits).startswith("blocked" if holds else "OUT") is True


OUTCOMES = [
    (APPORT, UNAVAILABLE, "kernel.core_pattern names a program"),
    (SOCKETS[0], UNAVAILABLE, "kernel.core_pattern names a socket"),
    ("core", 0, ""),
]


@pytest.mark.parametrize(("pattern", "code", "said"), OUTCOMES)
def test_a_launcher_that_cannot_raise_its_hard_limit_of_0_runs_only_where_a_file_is_named(
    ordinary: Cell, pattern: str, code: int, said: str
) -> None:
    """A real launcher of an ordinary account, told of a kernel with this pattern."""
    ended, errors = launch(ordinary, pattern, ("sh", "-c", 'ulimit -c 0; exec "$@"', "sh"))
    assert (ended, said in errors) == (code, True), errors
    assert (ordinary.project / "ran").exists() is (code == 0)


@pytest.mark.skipif(
    not core_limit_may_be_1(), reason="the hard limit of core files is 0 here, for good"
)
def test_a_launcher_with_any_other_limit_runs_where_a_program_is_named(ordinary: Cell) -> None:
    ended, errors = launch(ordinary, APPORT, ("sh", "-c", 'ulimit -c 1; exec "$@"', "sh"))
    assert (ended, (ordinary.project / "ran").exists()) == (0, True), errors


def launch(cell: Cell, pattern: str, before: tuple[str, ...]) -> tuple[int, str]:
    settings = cell.account.directory / "kernel"
    settings.mkdir()
    (settings / "core_pattern").write_text(pattern)
    asked = json.dumps([str(settings), str(cell.project)])
    done = subprocess.run(
        (*cell.account.prefix, *before, sys.executable, "-c", LAUNCH, asked),
        cwd=REPOSITORY,
        env=cell.account.environment() | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


LAUNCH = """
import asyncio, json, sys
from functools import partial
from pathlib import Path
from palyra_fleet.worker.isolation import start
from palyra_fleet.worker.isolation.namespace import View
settings, place = map(Path, json.loads(sys.argv[1]))
start.keep_crashes_inside = partial(start.keep_crashes_inside, settings=settings)
async def main():
    order = start.Order(Path("/bin/touch"), ("touch", str(place / "ran")), {})
    try:
        started = await start.start_isolated(View((place,)), order)
    except start.IsolationUnavailable as error:
        sys.stderr.write(str(error))
        return 99
    return await started.process.wait()
sys.exit(asyncio.run(main()))
"""
