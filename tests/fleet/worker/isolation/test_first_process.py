"""The first process of a namespace: ours, out of the program's reach, and nothing outlives it."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet.worker.isolation import run_inside
from tests.fleet.worker.isolation.cell import REPOSITORY, Cell

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed, so isolation was not tried"
)

STAYS = """
import ctypes, os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
libc = ctypes.CDLL(None)
libc.prctl(1, 0, 0, 0, 0)              # no death with the parent
libc.ptrace(0x4206, 1, 0, 0)           # and an attempt at the first process
if os.fork() == 0:
    os.setsid()
    print("inside", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("how", ["stays", "leaves"])
def test_nothing_outlives_a_launcher_that_is_killed(here: Cell, how: str) -> None:
    """Whoever reads its output sees the end of it: no process inside has the pipe open any more."""
    asked = {
        "workspace": str(here.workspace),
        "directory": str(here.project),
        "hidden": [],
        "command": [sys.executable, "-I", "-c", STAYS],
        "proven": False,
    }
    if how == "leaves":
        asked["command"] = ["/bin/sh", "-c", '"$@" & sleep 1000', "sh", *asked["command"]]
    launcher = subprocess.Popen(
        (sys.executable, run_inside.__file__, json.dumps(asked)),
        cwd=REPOSITORY,
        env=dict(os.environ) | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    with launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"inside\n"
        launcher.kill()
        ended, _, _ = select.select([launcher.stdout], [], [], 60)
        assert ended, "something inside is alive"
        assert launcher.stdout.read() == b""


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("kill -SEGV $$", 128 + signal.SIGSEGV),
        ("(sleep 0.1; exit 3) & exit 5", 5),  # an orphan's end is not the program's
        ("kill -KILL 1; kill -SEGV 1; kill -INT 1; exit 4", 4),
    ],
)
def test_a_run_ends_as_its_program_ends(cell: Cell, script: str, code: int) -> None:
    ended, _, errors = cell.run("/bin/sh", "-c", script)
    assert ended == code, errors


def test_orphans_leave_no_zombies(here: Cell) -> None:
    script = (
        "for n in 1 2 3; do (true & true); done; sleep 0.5;"
        "for p in /proc/[0-9]*; do sed -n 's/^State:\\t//p' $p/status; done"
    )
    _, out, _ = here.run("/bin/sh", "-c", script)
    assert "Z" not in out


def test_a_program_has_the_signals_of_any_other(here: Cell) -> None:
    """Python sets three of them, ignores two, and so must not have told the program to. What
    ignored others before us (`nohup`, a shell's `&`) is believed."""
    _, out, _ = here.run("/bin/sh", "-c", "grep SigIgn /proc/$$/status")
    pythons = _mask({signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ})
    assert int(out.split()[1], 16) == _ignored_here() & ~pythons


def _mask(signals: set[signal.Signals]) -> int:
    return sum(1 << (number - 1) for number in signals)


def _ignored_here() -> int:
    """What the kernel says, which also tells of the two signals that libc keeps to itself."""
    rows = Path("/proc/self/status").read_text().splitlines()
    (row,) = (row for row in rows if row.startswith("SigIgn:"))
    return int(row.split()[1], 16)


def test_a_program_leads_its_session_and_has_three_descriptors(here: Cell) -> None:
    leads = "os.getpid() == os.getsid(0) == os.getpgrp()"
    code = f"import os; print({leads}, *os.listdir('/proc/self/fd'))"
    _, out, errors = here.run(sys.executable, "-I", "-c", code)
    is_leader, *held = out.split()
    assert is_leader == "True", errors
    assert {"0", "1", "2"} <= set(held) <= {"0", "1", "2", "3"}  # the last lists the directory


def test_a_program_that_cannot_be_executed_says_why(here: Cell) -> None:
    here.project.joinpath("script").write_text("no program")
    code, out, errors = here.run(str(here.project / "script"))
    assert (code, out) == (127, "")
    assert "Permission denied" in errors


def test_what_the_program_left_running_does_not_keep_its_reader_waiting(here: Cell) -> None:
    """The first process holds none of the program's streams."""
    code, out, _ = here.run("/bin/sh", "-c", "exec >&- 2>&-; exec sleep 0.2")
    assert (code, out) == (0, "")


def test_the_environment_is_nowhere_to_read_but_in_the_program(cell: Cell) -> None:
    script = "cat /proc/1/environ /proc/1/maps; tr '\\0' '\\n' </proc/1/cmdline | grep PATH="
    code, out, errors = cell.run("/bin/sh", "-c", script)
    assert (code, out) == (1, "")
    assert errors.count("Permission denied") == 2


def test_the_first_process_is_this_packages(here: Cell) -> None:
    _, out, _ = here.run("/bin/sh", "-c", "tr '\\0' '\\n' </proc/1/cmdline")
    assert Path(out.splitlines()[2]).name == "inside.py"
