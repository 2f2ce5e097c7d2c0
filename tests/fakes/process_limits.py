"""Limits of processes: ours, for a while without descriptors, and what others have."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def without_descriptors() -> Iterator[None]:
    """Whatever opens a file here finds that this process has too many."""
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def core_limit(pid: int) -> tuple[str, str]:
    """The limits of a process's core files, soft and hard, as the kernel shows them."""
    rows = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
    (row,) = (row.split() for row in rows if row.startswith("Max core file size"))
    return row[4], row[5]


NO_CORE_FILES = (("1", "1"), ("0", "0"))
"""The limits of a process that leaves none; the second where its hard limit was 0 before."""


def core_limit_may_be_1() -> bool:
    """Whether a process here can be given that limit of core files: not where its hard limit is 0,
    unless it has CAP_SYS_RESOURCE."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard != 0:
        return True
    raised = subprocess.run(("sh", "-c", "ulimit -c 1"), stderr=subprocess.DEVNULL, check=False)
    return raised.returncode == 0
