"""Which descriptors an isolated program may have as its standard streams."""

import os
import socket
from collections.abc import Callable, Iterator
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
def pipe() -> Iterator[int]:
    ends = os.pipe()
    try:
        yield ends[0]
    finally:
        for end in ends:
            os.close(end)


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
        (pipe, ""),
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


def test_a_file_goes_through_a_pipe_and_a_pipe_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_text("line\n")
    with opened(str(file)) as number:
        with program_input(number) as given:
            assert given is not None
            kept = os.dup(given)
        with os.fdopen(kept) as read:
            assert read.read() == "line\n"
    with pipe() as number, program_input(number) as given:
        assert given is None
