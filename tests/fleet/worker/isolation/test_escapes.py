"""Somebody who wants out, as root's worker and as an ordinary account's: every way is refused.

What is tried are real programs in real namespaces. Each attempt is also made outside, where it can
do no harm, so that a refusal says something.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fakes.netns import own_network
from tests.fleet.worker.isolation import battery
from tests.fleet.worker.isolation.cell import UNAVAILABLE, Cell

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed, so isolation was not tried"
)

BATTERY = Path(battery.__file__)
REFUSED = (
    (
        *("network namespace", "mount namespace", "mount"),
        *("mount writable", "move a mount", "lay a hiding place bare", "change the root"),
        *("new file system", "copy of the tree", "file by handle", "device"),
        *("restart", "swap", "clock", "raw socket", "raw socket, IPv6", "interface", "route"),
        *("set-user-ID", "set-group-ID", "made set-user-ID", "core dumps"),
        *("core dumps of none", "core dumps of the first", "first process's trace"),
        *("first process's descriptor", "lease on a file", "EPERM"),
    ),
    ("join the first process", "first process's memory", "first process's root", "EACCES"),
    ("stalls by a trigger", "EROFS", "EACCES", "ENOENT"),
    ("user namespace", "ENOSPC", "EPERM"),
    ("kernel module", "another kernel", "EPERM", "ENOSYS"),
    ("core_pattern", "sysrq", "release_agent", "cgroup", "EROFS", "EACCES", "ENOENT"),
    ("kernel memory", "EPERM", "EACCES", "ENOENT"),
    ("launcher's root", "socket in /tmp", "ENOENT"),
    ("launcher's trace", "launcher's end", "launcher's handle", "ESRCH"),
    ("packets", "vsock", "kernel ciphers", "EAFNOSUPPORT"),
    ("abstract socket", "ECONNREFUSED"),
    ("io_uring", "bpf", "perf", "read a key", "key rings", "make a key", "ENOSYS"),
    ("program outside by a key", "ENOSYS"),
    ("names of keys", "EACCES", "ENOENT"),
    ("type into a terminal", "EPERM"),
    ("hidden file", "EACCES"),
)
"""Attempts, and behind them the errors with which each may fail."""
EXPECTED = {
    name: {word for word in row if word.isupper()}
    for row in REFUSED
    for name in row
    if not name.isupper()
}


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        listener.settimeout(0)
        yield listener


@contextmanager
def key_of_this_account() -> Iterator[int]:
    """The number of a key in the account's key ring; 1 where there are none."""
    ring = -4
    try:
        key = battery.call("add_key", b"user", b"palyra-test", b"secret", 6, ring)
    except OSError:
        yield 1
        return
    try:
        yield key
    finally:
        battery.call("keyctl", 9, key, ring)


def test_every_way_out_is_refused(cell: Cell) -> None:
    abstract = f"palyra-{os.getpid()}-{cell.account.uid}"
    (cell.project / "file").touch()
    cell.account.owns(cell.project / "file")
    path = str(cell.account.directory / "sock")
    with (
        listening("\0" + abstract) as one,
        listening(path) as other,
        key_of_this_account() as key,
    ):
        os.chmod(path, 0o777)  # noqa: PTH101 (everybody may, and nobody inside can)
        asked = {
            "launcher": str(os.getpid()),
            "abstract": abstract,
            "socket": path,
            "key": str(key),
            "file": str(cell.project / "file"),
            "hidden": str(cell.hidden),
        }
        assert battery.connected("\0" + abstract) == battery.connected(path) == "connected"
        for listener in (one, other):
            listener.accept()[0].close()
        code, out, errors = cell.run(
            sys.executable, "-I", "-c", BATTERY.read_text(), json.dumps(asked)
        )
        for listener in (one, other):
            with pytest.raises(BlockingIOError):
                listener.accept()
    assert code == 0, errors
    done = json.loads(out)
    assert set(done) == set(EXPECTED)
    assert {name: how for name, how in done.items() if how not in EXPECTED[name]} == {}
    assert (cell.project / "file").stat().st_mode & 0o6000 == 0


ADDRESSES = ("192.0.2.1", "2001:db8::1")
SEND_TO_ALL = """
import json, socket, sys
said = []
for host, port in json.loads(sys.argv[1]):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as sender:
            try:
                sender.connect((host, port))
                sender.send(b"x")
                said.append("sent")
            except OSError as error:
                said.append(type(error).__name__)
print(json.dumps(said))
"""


def test_the_machines_addresses_in_other_networks_are_not_reached(here: Cell) -> None:
    """In a network of the test's own, with addresses of IPv4 and IPv6 besides the loopback."""
    with own_network(), ExitStack() as held:
        streams, datagrams, ports = [], [], []
        for host in ADDRESSES:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            stream = held.enter_context(socket.create_server((host, 0), family=family))
            datagram = held.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            datagram.bind(stream.getsockname()[:2])
            ports.append((host, stream.getsockname()[1]))
            streams.append(stream)
            datagrams.append(datagram)
            stream.setblocking(False)
            datagram.setblocking(False)
        command = (sys.executable, "-I", "-c", SEND_TO_ALL, json.dumps(ports))
        outside = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(outside.stdout) == ["sent"] * 4
        for stream, datagram in zip(streams, datagrams, strict=True):
            stream.accept()[0].close()
            assert datagram.recv(1) == b"x"
        code, out, errors = here.run(*command)
        assert code == 0, errors
        assert json.loads(out) == ["OSError"] * 4  # no route
        for stream, datagram in zip(streams, datagrams, strict=True):
            with pytest.raises(BlockingIOError):
                stream.accept()
            with pytest.raises(BlockingIOError):
                datagram.recv(1)


def test_a_network_socket_as_input_is_refused(here: Cell) -> None:
    """Unconnected by connect(2) to AF_UNSPEC it could be connected to anybody."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
    ):
        code, out, errors = here.run("/bin/echo", "ran", stdin=connection)
    assert (code, out) == (UNAVAILABLE, "")
    assert errors == (
        "unavailable: standard input is a socket that leads elsewhere: by it a program could get "
        "out; give it a pipe, a file or /dev/null\n"
    )


def test_a_connected_unix_stream_is_passed_on(here: Cell) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"hello\n")
        ours.shutdown(socket.SHUT_WR)
        assert here.run("/bin/cat", stdin=theirs)[:2] == (0, "hello\n")


def test_a_file_as_input_is_read_from_where_it_stands_and_never_written(here: Cell) -> None:
    """Through /proc/self/fd it could be, whatever the mounts inside say."""
    file = here.account.directory / "commands"
    file.write_text("first\n" + "x" * 300_000)
    script = "cat; echo changed > /proc/self/fd/0"
    with file.open("rb", buffering=0) as read:
        assert read.read(6) == b"first\n"
        _, out, _ = here.run("/bin/sh", "-c", script, stdin=read)
    assert out == "x" * 300_000
    assert file.read_text() == "first\n" + "x" * 300_000


def test_what_is_written_to_an_input_pipe_reaches_nobody_who_reads_on(here: Cell) -> None:
    """A shell that takes its script from the pipe would run it, outside."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as read, os.fdopen(writing, "wb") as write:
        os.set_blocking(reading, False)
        write.write(b"for the program\n")
        write.flush()
        script = 'read -r line; echo "$line"; echo typed > /proc/self/fd/0; echo done'
        assert here.run("/bin/sh", "-c", script, stdin=read)[1] == "for the program\ndone\n"
        assert read.read() is None


def test_a_program_that_does_not_read_its_input_ends_all_the_same(here: Cell) -> None:
    file = here.account.directory / "commands"
    file.write_text("x" * 300_000)
    with file.open("rb") as read:
        assert here.run("/bin/echo", "done", stdin=read) == (0, "done\n", "")


@pytest.mark.parametrize("limit", ["0", "1", "unlimited"])
def test_no_core_is_dumped_whatever_the_launchers_limit(cell: Cell, limit: str) -> None:
    """1 is what keeps the kernel from starting a handler; some of root's can raise 0 to it."""
    code = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
    before = ("sh", "-c", f'ulimit -c {limit} || exit 77; exec "$@"', "sh")
    ended, out, errors = cell.run(sys.executable, "-I", "-c", code, before=before)
    if ended == 77:
        pytest.skip("this account may not raise its limit")
    assert ended == 0, errors
    assert out in ({"0 0\n", "1 1\n"} if limit == "0" else {"1 1\n"})
