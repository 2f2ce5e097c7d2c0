"""The three standard streams, the one thing that an isolated program has from outside.

A descriptor belongs to the place where it was opened, whoever holds it. A network socket could be
connected anew, to anybody, from the launcher's own network; a directory leads to every file around
it; a file opened for reading can be opened for writing through `/proc/self/fd`, whatever the mounts
inside say. A pipe for reading can be opened so as well, and what is written there is read by
whoever reads on after the program: a shell that takes its script from that pipe runs it, outside.
So a stream is passed on only if it leads nowhere else: a terminal, a connected Unix stream socket,
one of the plain devices, and as output a pipe or a file that was opened for writing. A file or a
pipe as input is copied through a pipe of our own. Anything else is refused. Sources: connect(2)
(AF_UNSPEC), proc_pid_fd(5), pipe(7), unix(7), ioctl_tty(2), poll(2).
"""

import contextlib
import fcntl
import os
import select
import socket
import stat
import threading
from collections.abc import Iterator
from typing import Final

STANDARD: Final = {0: "input", 1: "output", 2: "error"}
_PLAIN_DEVICES: Final = {os.makedev(1, minor) for minor in (3, 5, 7, 8, 9)}
"""null, zero, full, random, urandom."""
_TIOCGPTN: Final = 0x80045430
_CHUNK_BYTES: Final = 64 * 1024


def streams_that_lead_elsewhere() -> tuple[str, ...]:
    """What is wrong with this process's standard streams, one text for each."""
    found = ((name, kind_refused(number)) for number, name in STANDARD.items())
    return tuple(f"standard {name} is {kind}" for name, kind in found if kind)


@contextlib.contextmanager
def program_input(number: int = 0) -> Iterator[int | None]:
    """What to give as standard input: None to pass it on, or a pipe of our own that has what is in
    the file or pipe. That is read on from where it stands, while the program reads."""
    mode = os.fstat(number).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode) or stat.S_ISFIFO(mode)):
        yield None
        return
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        yield reading
        threading.Thread(target=_copy, args=(number, writing), daemon=True).start()
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)


def _copy(source: int, pipe: int) -> None:
    """To the end of the input, or until nobody reads any more: what comes after a program that has
    ended is not for it, and stays for others."""
    with os.fdopen(pipe, "wb", buffering=0) as written, contextlib.suppress(OSError):
        while _has_more(source, pipe):
            try:
                chunk = os.read(source, _CHUNK_BYTES)
            except BlockingIOError:  # another reader was first
                continue
            if not chunk:
                return
            view = memoryview(chunk)
            while view:
                view = view[written.write(view) :]


def _has_more(source: int, pipe: int) -> bool:
    """Wait until there is something to read, the end included; False once nobody reads the pipe."""
    both = select.poll()
    both.register(source, select.POLLIN)
    both.register(pipe, 0)  # an error is told in any case
    return pipe not in dict(both.poll())


def kind_refused(number: int) -> str:
    """What the descriptor with this number is, where that is nothing to pass on; else empty."""
    try:
        status = os.fstat(number)
    except OSError:
        return "closed"
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFREG if number != 0 and _is_read_only(number):
            return "a file that was opened for reading"
        case stat.S_IFIFO if number != 0 and _is_read_only(number):
            return "a pipe that was opened for reading"
        case stat.S_IFREG | stat.S_IFIFO:
            return ""
        case stat.S_IFBLK:
            return "" if number == 0 else "a block device"
        case stat.S_IFCHR:
            if _is_terminals_other_side(number):
                return "the controlling side of a terminal"
            is_plain = status.st_rdev in _PLAIN_DEVICES or os.isatty(number)
            return "" if is_plain else "a device"
        case stat.S_IFSOCK:
            return "" if _is_connected_stream(number) else "a socket that leads elsewhere"
        case stat.S_IFDIR:
            return "a directory"
        case _:
            return "nothing that a program reads or writes"


def _is_terminals_other_side(number: int) -> bool:
    """What is written to a pseudoterminal's master is typed for whoever reads its slave. It says of
    itself that it is a terminal, too; only a master has a slave's number."""
    try:
        fcntl.ioctl(number, _TIOCGPTN, bytes(4))
    except OSError:
        return False
    return True


def _is_read_only(number: int) -> bool:
    flags = fcntl.fcntl(number, fcntl.F_GETFL)
    return bool(flags & os.O_PATH) or flags & os.O_ACCMODE == os.O_RDONLY


def _is_connected_stream(number: int) -> bool:
    """A Unix stream that has its peer keeps it."""
    with socket.socket(fileno=os.dup(number)) as stream:
        if (stream.family, stream.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
            return False
        try:
            stream.getpeername()
        except OSError:
            return False
    return True
