"""What the machine gives: room on the disk, descriptors, a believable clock, isolation; and that a
crash of what serves leaves nothing of its memory.

Units: bytes, Unix milliseconds. Sources: `getrlimit(2)`, `proc_pid_limits(5)`, `unix(7)`
(SO_PEERCRED names the process that listens).
"""

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import struct
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from palyra_fleet.core_files import NO_CORE_BYTES
from palyra_fleet.doctor.finding import Finding, fail, ok, warn
from palyra_fleet.worker.isolation.sandbox import Isolation, Sandbox
from palyra_fleet.worker.isolation.start import IsolationUnavailable

MIB: Final = 1024 * 1024
FULL_BELOW_BYTES: Final = 64 * MIB
"""Below this an audit log or database soon cannot be written, and then all is refused."""
SCARCE_BELOW_BYTES: Final = 1024 * MIB
FEWEST_DESCRIPTORS: Final = 256
FEW_DESCRIPTORS: Final = 4096
NEARLY_USED: Final = 0.8
EARLIEST_UNIX_MS: Final = 1_767_225_600_000  # 2026-01-01, before this program was
LATEST_UNIX_MS: Final = 4_102_444_800_000  # 2100-01-01
_PEERCRED: Final = struct.Struct("3i")


def disk(path: Path, least_bytes: int = FULL_BELOW_BYTES) -> Iterator[Finding]:
    """Room where state is written, or will be: where the folder is not there, in the one above."""
    path = next((one for one in (path, *path.parents) if one.exists()), path)
    free = shutil.disk_usage(path).free
    said = f"{free // MIB} MiB free for {path}"
    if free < least_bytes:
        yield fail("disk", said, "make room: what cannot be written down is refused")
    elif free < max(least_bytes, SCARCE_BELOW_BYTES):
        yield warn("disk", said, "make room, or move old audit files elsewhere")
    else:
        yield ok("disk", said)


def clock(now_unix_ms: int) -> Iterator[Finding]:
    """A time that can be."""
    said = _when(now_unix_ms)
    if EARLIEST_UNIX_MS <= now_unix_ms < LATEST_UNIX_MS:
        yield ok("clock", f"it is {said}")
    else:
        yield fail("clock", f"it cannot be {said}", "set the clock, and keep it by NTP")


def not_set_back(now_unix_ms: int, seen_unix_ms: int, tolerance_ms: int = 5_000) -> Finding:
    """The clock against the latest time that was written down."""
    behind_ms = seen_unix_ms - now_unix_ms
    if behind_ms > tolerance_ms:
        return fail(
            "clock.set_back",
            f"the clock is {behind_ms // 1000} s behind the time that was written down last"
            f" ({_when(seen_unix_ms)})",
            "set the clock; until then the fleet counts on from what it saw, and leases end",
        )
    return ok("clock.set_back", "the clock is not behind what was written down")


def descriptors(serving_socket: Path) -> Iterator[Finding]:
    """How many files and connections the serving process may have open; ours where none serves."""
    pid = serving_pid(serving_socket)
    limit, used = _limit_of(pid)
    whose = "a process of this account" if pid is None else f"process {pid}"
    had = f"has {used}" if used is not None else "and how many it has is root's alone to see"
    said = f"{whose} may open {limit} files, {had}"
    remedy = "raise LimitNOFILE of its unit (or `ulimit -n`), and start it again"
    if limit < FEWEST_DESCRIPTORS or (used or 0) >= limit:
        yield fail("descriptors", said, remedy)
    elif limit < FEW_DESCRIPTORS or (used or 0) > limit * NEARLY_USED:
        yield warn("descriptors", said, remedy)
    else:
        yield ok("descriptors", said)


def core_files(serving_socket: Path) -> Iterator[Finding]:
    """Whether a crash of the serving process would write its memory, and all that is secret in it,
    to a file. Programs forbid it when they begin to serve."""
    pid = serving_pid(serving_socket)
    if pid is None:
        yield ok("core_files", "nothing serves here; what does forbids core files when it begins")
        return
    limit, _ = resource.prlimit(pid, resource.RLIMIT_CORE)
    if 0 <= limit <= NO_CORE_BYTES:
        yield ok("core_files", f"a crash of process {pid} leaves no core file")
        return
    said = f"a crash of process {pid} may write its memory, and what is secret in it, to a file"
    yield fail("core_files", said, "start it again, and leave RLIMIT_CORE as it sets it")


def isolation(working_directory: Path) -> Iterator[Finding]:
    """Whether `--isolate` works here: the canary is sent in, as before every isolated run."""
    with tempfile.TemporaryDirectory(prefix="palyra-doctor-") as workspace:
        trial = Sandbox.prove(Isolation(), Path(workspace), working_directory, "127.0.0.1:9")
        try:
            asyncio.run(trial)
        except IsolationUnavailable as error:
            remedy = "install bubblewrap and allow user namespaces; docs/isolation.md"
            yield warn("isolation", f"workers cannot be isolated here: {error}", remedy)
        else:
            yield ok("isolation", "the canary found no way around the proxy")


def serving_pid(path: Path, within_s: float = 2.0) -> int | None:
    """The process that listens on a Unix socket; None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(within_s)
        try:
            probe.connect(os.fspath(path))
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        except OSError:
            return None
    return int(_PEERCRED.unpack(peer)[0])


def _limit_of(pid: int | None) -> tuple[int, int | None]:
    """The soft limit and how many are open; None where that is closed to us, as it is to every
    account but root's once a process has forbidden core files."""
    whose = os.getpid() if pid is None else pid
    limit, _ = resource.prlimit(whose, resource.RLIMIT_NOFILE)
    used: int | None = None
    with contextlib.suppress(PermissionError):
        used = len(os.listdir(f"/proc/{whose}/fd"))  # noqa: PTH208 (names alone are counted)
    return (2**31 if limit < 0 else limit), used


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, tz=UTC).isoformat(timespec="seconds")
