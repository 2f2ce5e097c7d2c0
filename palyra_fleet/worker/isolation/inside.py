"""The first process inside the namespaces: hands the door out, starts the worker's program, stays.

Run by path with the interpreter's isolated mode, with the number of a connected Unix socket and the
door's port as its arguments. It opens the one listening socket of this namespace's loopback and
passes it to the launcher outside, who answers there for the proxy; receives what to run, the
environment included, which so stands in no argument list; looks that each place is still the one
that was decided about; and starts the program. Then it takes the exits of orphans and ends as the
program ends, and with it, by the kernel, everything else in the namespace.

The program shares its account and its process namespace, and must not get at it: whoever can trace
the first process, or take its descriptors, can undo what ends it with the launcher, or make it
crash. So it is not dumpable: ptrace(2), proc_pid_mem(5) and pidfd_getfd(2) are refused then. Its
limit of core dumps is the launcher's to set, before it gives the order, and is inherited. It needs
nothing but the standard library.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

HELLO = b"palyra-inside-2"
READY = b"ready"
MAX_ORDER_BYTES = 8 * 1024 * 1024
BACKLOG = 1024
PR_SET_DUMPABLE = 4
_FIRST_OF_OURS = 3
_SET_BY_PYTHON = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)


def main(control_fd: int, port: int) -> int:
    _be_out_of_reach()
    with socket.socket(fileno=control_fd) as control:
        with socket.create_server(("127.0.0.1", port), backlog=BACKLOG) as door:
            socket.send_fds(control, [HELLO], [door.fileno()])
        order = json.loads(_read_order(control))
        if moved := [path for path, *was in order["places"] if _identity(path) != was]:
            control.sendall(f"another directory took the place of {', '.join(moved)}".encode())
            return 1
        control.sendall(READY)
    os.closerange(_FIRST_OF_OURS, 1 << 20)  # the program gets its three standard streams alone
    program = os.fork()
    if program == 0:
        _become(order)
    del order
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(
        _FIRST_OF_OURS
    ):  # who reads the program's output waits for its end, not ours
        os.dup2(nothing, stream)
    os.close(nothing)
    return _until_ended(program)


def _be_out_of_reach() -> None:
    """Raises OSError: then nothing runs."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    for number in _SET_BY_PYTHON:  # at their defaults the first process is sent none from inside
        signal.signal(number, signal.SIG_DFL)


def _read_order(control: socket.socket) -> bytes:
    order = b""
    while len(order) <= MAX_ORDER_BYTES:
        data = control.recv(65536)
        if not data:
            return order
        order += data
    raise SystemExit("palyra: the order to run is too long")


def _identity(path: str) -> list[int]:
    """The same inside and outside, however it is mounted; none where it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return []
    return [found.st_dev, found.st_ino]


def _become(order: dict[str, Any]) -> None:
    """In the child: execute, or say why not. Never returns."""
    try:
        os.setsid()
        os.execve(  # noqa: S606 (what was ordered, as it was ordered)
            order["executable"], order["arguments"], order["environment"]
        )
    except OSError as error:
        os.write(2, f"palyra: {order['executable']}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _until_ended(program: int) -> int:
    """Its exit code, 128+signal when a signal ended it."""
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
