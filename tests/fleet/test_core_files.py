"""A crash leaves nothing of our memory: in a real process that crashes."""

import os
import resource
import signal
import sys
from pathlib import Path

import pytest

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
CRASH = """
import os, resource, signal, sys
from pathlib import Path
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
asked = int(sys.argv[2])
unlimited = resource.RLIM_INFINITY
wanted = asked if hard == unlimited else hard if asked == unlimited else min(hard, asked)
resource.setrlimit(resource.RLIMIT_CORE, (wanted, wanted))
if sys.argv[1] == "forbid":
    from palyra_fleet.core_files import forbid_core_files
    forbid_core_files()
if sys.argv[1] == "undumpable":
    import ctypes
    from palyra_fleet.core_files import PR_SET_DUMPABLE
    assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
rows = Path("/proc/self/limits").read_text().splitlines()
(row,) = (row.split() for row in rows if row.startswith("Max core file size"))
Path(sys.argv[3]).write_text(f"{row[4]} {row[5]} {os.stat('/proc/self/mem').st_uid}")
signal.signal(signal.SIGSEGV, signal.SIG_DFL)
os.kill(os.getpid(), signal.SIGSEGV)
"""


def crashed(tmp_path: Path, deed: str, limit: int) -> tuple[int, str]:
    """The wait status of a process that was told `deed` and crashed, and what it had read of its
    own limits, soft and hard, and of who owns its memory."""
    told = tmp_path / "told"
    words = [sys.executable, "-c", CRASH, deed, str(limit), str(told)]
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        pid = os.posix_spawn(sys.executable, words, {**os.environ, "PYTHONPATH": str(before)})
    finally:
        os.chdir(before)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV
    return status, told.read_text()


def _whole_core_files() -> bool:
    """Whether a crash here writes a file beside the program; a hard limit below a page, or one
    below what the file takes, forbids it, and only a privileged process may raise it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    elsewhere = CORE_PATTERN.read_text().startswith(("|", "@", "/"))
    return not elsewhere and hard == resource.RLIM_INFINITY


@pytest.mark.skipif(
    not _whole_core_files(), reason="core files are not written whole beside the program here"
)
def test_the_tests_crash_does_leave_a_core_file_where_nobody_forbids_it(tmp_path: Path) -> None:
    status, _ = crashed(tmp_path, "allow", -1)
    assert os.WCOREDUMP(status) and list(tmp_path.glob("core*"))


@pytest.mark.parametrize(
    ("before", "after"), [(-1, "1 1"), (1 << 20, "1 1"), (1, "1 1"), (0, "0 0")]
)
def test_a_crash_leaves_no_core_file_and_memory_is_closed(
    tmp_path: Path, before: int, after: str
) -> None:
    """Whatever the limit was: 1 byte is less than any core file, and the one value at which a
    program that `core_pattern` names is not started; of 0 nothing can be made but 0."""
    status, told = crashed(tmp_path, "forbid", before)
    assert not os.WCOREDUMP(status) and list(tmp_path.iterdir()) == [tmp_path / "told"]
    assert told in (f"{after} 0", "0 0 0")


def test_an_undumpable_process_leaves_none_whatever_the_limit(tmp_path: Path) -> None:
    """The second of the two is enough alone."""
    status, told = crashed(tmp_path, "undumpable", -1)
    assert not os.WCOREDUMP(status) and list(tmp_path.iterdir()) == [tmp_path / "told"]
    assert told.endswith(" 0")
