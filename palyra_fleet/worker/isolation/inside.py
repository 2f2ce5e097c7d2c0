"""The first program inside the namespaces: hands the door out, then becomes the worker's program.

Run by path with the interpreter's isolated mode, with the number of a connected Unix socket as its
argument. It opens the one listening socket of this namespace's loopback and passes it to the
launcher outside, who answers there for the proxy; receives what to run, the environment included,
which so stands in no argument list; and executes it. It needs nothing but the standard library.
"""

import json
import os
import resource
import socket
import sys

HELLO = b"palyra-inside-1"
MAX_ORDER_BYTES = 8 * 1024 * 1024
BACKLOG = 1024
NO_CORE_BYTES = 1
"""Below what any core is, and what core(5) has for no start of the handler in core_pattern, which
the kernel would run outside, as root, with a memory image that the program chose."""


def main(control_fd: int) -> None:
    with socket.socket(fileno=control_fd) as control:
        with socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=BACKLOG) as door:
            socket.send_fds(control, [HELLO], [door.fileno()])
        order = json.loads(_read_order(control))
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:  # a limit of none cannot be raised
        resource.setrlimit(resource.RLIMIT_CORE, (NO_CORE_BYTES, NO_CORE_BYTES))
    os.closerange(3, 1 << 20)  # the program gets its three standard streams and nothing of ours
    os.execve(order["executable"], order["arguments"], order["environment"])  # noqa: S606


def _read_order(control: socket.socket) -> bytes:
    order = b""
    while len(order) <= MAX_ORDER_BYTES:
        data = control.recv(65536)
        if not data:
            return order
        order += data
    raise SystemExit("palyra: the order to run is too long")


if __name__ == "__main__":
    main(int(sys.argv[1]))
