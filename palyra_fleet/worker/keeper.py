"""Runs one program and stays until everything that came of it has ended. A script of its own.

Started by `process_group` with a control socket as its only argument. It is the *subreaper* of the
program (prctl(2), PR_SET_CHILD_SUBREAPER): a descendant that loses its parent, whatever session it
made and whatever it did to its environment, becomes a child of this process, so the tree below it
is all that is left of the program. When the control socket closes (the launcher is done, or dead)
it kills that tree and ends. It imports nothing of ours and lets nobody read its memory or trace it.

Protocol, lines of text: in, one JSON object {executable, arguments, environment}; out, `started
PID` or `failed ERRNO`, then `ended STATUS` (a wait status) when the program itself has ended.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

PR_SET_DUMPABLE: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36
_PROC: Final = Path("/proc")
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


def main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    _set(PR_SET_CHILD_SUBREAPER, 1)
    _set(PR_SET_DUMPABLE, 0)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    woken, waking = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    program = _start(json.loads(_line(control)), control)
    if program is None:
        return 0
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
        _reap(program, control)
        if control.fileno() in ready and _is_closed(control):
            _end_all(program, control)
            return 0


def _is_closed(control: socket.socket) -> bool:
    try:
        return not control.recv(64)
    except ConnectionError:
        return True


def descendants(root: int) -> list[int]:
    """Every process below `root` that is not dead, by the parents that /proc names."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (found := look_at(int(entry.name))) is not None:
            children.setdefault(found[0], []).append(int(entry.name))
    below: list[int] = []
    looking = [root]
    while looking:
        next_ones = children.get(looking.pop(), [])
        below += next_ones
        looking += next_ones
    return below


def look_at(pid: int) -> tuple[int, int, int] | None:
    """Parent, group and session of a process that is alive; None otherwise. One whose first thread
    has ended looks like a zombie while its other threads run on."""
    place = _PROC / str(pid)
    try:
        stat = (place / "stat").read_text(errors="replace")
        state, parent, group, session = stat.rpartition(")")[2].split()[:4]
        if state in {"Z", "X"} and len(list((place / "task").iterdir())) <= 1:
            return None
    except OSError:
        return None
    return int(parent), int(group), int(session)


def _start(order: dict[str, Any], control: socket.socket) -> int | None:
    """Fork the program into a session of its own; its number, once it has been executed."""
    told, telling = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(order, telling)
    os.close(telling)
    failed = os.read(told, 16)
    os.close(told)
    if failed:
        os.waitpid(pid, 0)
        control.sendall(b"failed %s\n" % failed)
        return None
    control.sendall(b"started %d\n" % pid)
    return pid


def _become(order: dict[str, Any], telling: int) -> None:
    """In the child: execute, or say why not. Never returns."""
    try:
        os.setsid()
        for number in (*_IGNORED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execve(  # noqa: S606 (what was ordered, as it was ordered)
            order["executable"], order["arguments"], order["environment"]
        )
    except OSError as error:
        os.write(telling, b"%d" % (error.errno or 1))
    except BaseException:  # noqa: BLE001 (a child that must not go on as its parent)
        os.write(telling, b"1")
    os._exit(127)


def _reap(program: int, control: socket.socket) -> None:
    """Take the exit of every child that ended; the program's own is told."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == program:
                with contextlib.suppress(OSError):
                    control.sendall(b"ended %d\n" % status)


def _end_all(program: int, control: socket.socket) -> None:
    """Kill the tree until nothing of it is left: what forks meanwhile is found by the next look."""
    while left := descendants(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        select.select([], [], [], 0.01)
        _reap(program, control)


def _line(control: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        piece = control.recv(65536)
        if not piece:
            sys.exit(0)
        received += piece
    return bytes(received)


def _set(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main())
