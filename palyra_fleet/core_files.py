"""No core files of ours, and nobody of our account reads our memory.

What holds credentials and keys calls `forbid_core_files` before it reads the first of them. Two
things, since each alone leaves something open. The limit (RLIMIT_CORE) goes to 1 byte, hard as
soft: below a page nothing is written to a file, and 1 is also the one value at which the kernel
starts no handler where `core_pattern` names a program; 0 does not stop that, and where the hard
limit is 0 it stays, as 1 would be more. Then the process is made undumpable (PR_SET_DUMPABLE 0):
the kernel looks at that before it looks at `core_pattern`, whatever the limit, and processes of the
same account can no longer attach to this one or read its memory, environment and descriptors. A
program that is started from here gets the limit, and is dumpable again when it is executed.
Sources: core(5), prctl(2), proc_pid(5), fs/coredump.c of Linux 6.
"""

import ctypes
import os
import resource
from typing import Final

NO_CORE_BYTES: Final = 1
PR_GET_DUMPABLE: Final = 3
PR_SET_DUMPABLE: Final = 4


class CoreFilesAllowed(Exception):
    """The kernel did not take it: a crash would write what is secret to a file."""


def forbid_core_files() -> None:
    """From now on a crash of this process leaves nothing of its memory. Raises CoreFilesAllowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    lowest = 0 if hard == 0 else NO_CORE_BYTES
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (lowest, lowest))
    except (OSError, ValueError) as error:
        raise CoreFilesAllowed(
            f"the limit of core files cannot be lowered from {hard}: {error}; expected the system"
            " call to be allowed, or LimitCORE=1 in the unit"
        ) from error
    if _prctl(PR_SET_DUMPABLE, 0) or _prctl(PR_GET_DUMPABLE) != 0:
        why = os.strerror(ctypes.get_errno())
        raise CoreFilesAllowed(f"this process cannot be made undumpable: prctl: {why}")


def _prctl(option: int, value: int = 0) -> int:
    """What prctl(2) answers; the libc that runs this program has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))
