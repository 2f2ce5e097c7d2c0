"""Whether a crash of an isolated program would reach something outside, and keeping it from that.

What `core_pattern` names is the whole machine's, and no namespace holds it. A file needs a limit
above what a core is. A program (`|`) is started outside, as root, with a memory image that the
crashed program chose, whatever the limit is but for exactly 1: a limit of 0 starts it. A socket
(`@`, since Linux 6.16) is connected to whatever the limit is. A process that is not dumpable is
spared, but execve(2) makes it dumpable again; and a limit of 1 may always be lowered to 0, which
the filter (`system_calls`) keeps a program from. Tried on a kernel of its own (6.1) for limits of
0, 1, 4096 and none. Sources: core(5), prctl(2), fs/coredump.c.
"""

import contextlib
import resource
from pathlib import Path
from typing import Final

KERNEL_SETTINGS: Final = Path("/proc/sys/kernel")
NOTHING_STARTED: Final = 1

type Limits = tuple[int, int]
"""Soft and hard, as getrlimit(2) gives them; -1 for none."""


def keep_crashes_inside(pid: int, settings: Path = KERNEL_SETTINGS) -> str:
    """Give this process, which has started nothing yet, the limit with which a crash of it or of
    what it starts stays inside; why that cannot be had here, or empty. Raises OSError."""
    with contextlib.suppress(PermissionError, ValueError):  # a hard limit of 0 is root's to raise
        resource.prlimit(pid, resource.RLIMIT_CORE, (NOTHING_STARTED, NOTHING_STARTED))
    return core_dump_problem(_pattern(settings), resource.prlimit(pid, resource.RLIMIT_CORE))


def core_dump_problem(pattern: str | None, limits: Limits) -> str:
    """Why a crash would reach the outside, and what to do; empty where it would not. `pattern` is
    None where it cannot be read, and empty on a kernel without core dumps. Pure."""
    if pattern is None:
        return "kernel.core_pattern cannot be read, so nobody knows what a crash would start"
    if pattern.startswith("@"):
        return (
            "kernel.core_pattern names a socket, to which the kernel brings the crash of any "
            "program whatever its limits; let it name a file or a program"
        )
    if limits == (NOTHING_STARTED, NOTHING_STARTED):
        return ""
    if limits != (0, 0):
        return f"the limit of core dumps is {limits[0]} and {limits[1]}, and could not be set to 1"
    if pattern.startswith("|"):
        return (
            "kernel.core_pattern names a program, which a crash would start outside: only a limit "
            "of core dumps of 1 keeps it from that, and the hard limit here is 0; raise it to 1 or "
            "more (LimitCORE=1, ulimit -Hc)"
        )
    return ""


def _pattern(settings: Path) -> str | None:
    try:
        text = (settings / "core_pattern").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "" if settings.is_dir() else None
    except OSError:
        return None
    return text.strip()
