"""Who is at the other end of a Unix socket, as the kernel says: account, process, its start.

The kernel keeps the numbers of the moment of `connect`. A process number is used again, so the
start time goes with it; when the process has ended, or another has its number, whoever holds the
socket now is not who connected. Sources: unix(7), SO_PEERCRED; proc(5), field 22 of `stat`.
"""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid
_START_FIELD: Final = 22


@dataclass(frozen=True, slots=True)
class PeerProcess:
    """Account and process that connected; `started_ticks` since the machine's start."""

    uid: int
    pid: int
    started_ticks: int

    def is_there(self) -> bool:
        """Whether this very process still exists."""
        return started_ticks(self.pid) == self.started_ticks


def peer_process(sock: socket.socket) -> PeerProcess | None:
    """The process that connected; None where the kernel cannot name it, or it has ended already."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    pid, uid, _gid = _UCRED.unpack(raw)
    started = started_ticks(pid) if pid > 0 else None
    return None if started is None else PeerProcess(uid, pid, started)


def started_ticks(pid: int) -> int | None:
    """When a process started; None when there is none, or it has ended and waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    is_dead = fields[0] in ("Z", "X")
    return None if is_dead else int(fields[_START_FIELD - 3])
