"""Which descriptors an isolated program may have as its standard streams."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from palyra_fleet.worker.isolation.streams import kind_refused, program_input


@contextmanager
def tcp_connection() -> Iterator[socket.socket]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
    ):
        yield connection


@contextmanager
def end_of_a_pair(kind: socket.SocketKind) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        yield theirs


@contextmanager
def opened(path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    number = os.open(path, flags)
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def event() -> Iterator[int]:
    number = os.eventfd(0)
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def pipe_ends() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def pipe() -> Iterator[int]:
    with pipe_ends() as (reading, _):
        yield reading


@contextmanager
def writing_end() -> Iterator[int]:
    with pipe_ends() as (_, writing):
        yield writing


@contextmanager
def terminal() -> Iterator[int]:
    ends = os.openpty()
    try:
        yield ends[1]
    finally:
        for end in ends:
            os.close(end)


SOCKET = "a socket that leads elsewhere"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (tcp_connection, SOCKET),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), SOCKET),
        (lambda: socket.socket(socket.AF_UNIX), SOCKET),  # not connected yet
        (lambda: end_of_a_pair(socket.SOCK_DGRAM), SOCKET),  # may be connected anew
        (lambda: end_of_a_pair(socket.SOCK_STREAM), ""),
        (lambda: opened("/"), "a directory"),
        (lambda: opened("/", os.O_PATH), "a directory"),
        (event, "nothing that a program reads or writes"),
        (lambda: opened("/dev/ptmx", os.O_RDWR), "the controlling side of a terminal"),
        (lambda: opened("/dev/null"), ""),
        (lambda: opened("/dev/zero"), ""),
        (lambda: opened(__file__), "a file that was opened for reading"),
        (lambda: opened(__file__, os.O_WRONLY), ""),
        (pipe, "a pipe that was opened for reading"),
        (writing_end, ""),
        (terminal, ""),
    ],
)
def test_what_leads_nowhere_else_is_passed_on(make: Callable[[], object], kind: str) -> None:
    with make() as held:  # type: ignore[attr-defined]
        assert kind_refused(held if isinstance(held, int) else held.fileno()) == kind


def test_a_closed_stream_is_refused() -> None:
    with pipe() as number:
        pass
    assert kind_refused(number) == "closed"


def test_a_device_that_does_more_is_refused() -> None:
    devices = ("/dev/net/tun", "/dev/fuse", "/dev/kmsg")
    found = next((path for path in devices if os.access(path, os.R_OK)), None)
    if found is None:
        pytest.skip("there is no device here but the plain ones")
    with opened(found) as number:
        assert kind_refused(number) == "a device"


def copied(number: int) -> int:
    with program_input(number) as given:
        assert given is not None
        return os.dup(given)


def test_a_file_goes_through_a_pipe_and_a_terminal_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text("line\n")
    with opened(str(file)) as number, os.fdopen(copied(number)) as read:
        assert read.read() == "line\n"
    with terminal() as number, program_input(number) as given:
        assert given is None


def test_a_pipe_goes_through_another_one_to_its_end() -> None:
    much = b"x" * 300_000  # more than pipes hold
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.stdin is not None and cat.stdout is not None
        given = copied(cat.stdout.fileno())
        assert os.fstat(given).st_ino != os.fstat(cat.stdout.fileno()).st_ino
        with os.fdopen(given, "rb") as read, ThreadPoolExecutor(1) as pool:
            came = pool.submit(read.read)
            cat.stdin.write(much)
            cat.stdin.close()
            assert came.result(60) == much


def test_what_comes_after_the_last_reader_stays_in_the_pipe() -> None:
    with pipe_ends() as (number, writing):
        before = set(threading.enumerate())
        given = copied(number)
        os.write(writing, b"first")
        assert os.read(given, 16) == b"first"
        (copying,) = set(threading.enumerate()) - before
        os.close(given)
        copying.join(60)
        assert not copying.is_alive()
        os.write(writing, b"second")
        assert os.read(number, 16) == b"second"


def test_an_input_that_does_not_block_is_waited_for() -> None:
    with pipe_ends() as (number, writing):
        os.set_blocking(number, False)
        with os.fdopen(copied(number), "rb", buffering=0) as read:
            for word in (b"one", b"two"):
                os.write(writing, word)
                assert read.read(16) == word
