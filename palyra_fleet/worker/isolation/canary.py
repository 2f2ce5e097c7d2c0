"""The canary: a program that tries to get out of the namespaces, and says what it achieved.

Run inside, exactly as the worker's program will be, with its attempts as JSON in its one argument;
writes a JSON object of attempt name → what happened ("blocked: …", "OUT: …", or "through" for
the door). Nothing it sends
leaves the machine: it aims at listeners of the launcher, at this machine's resolvers, and at
sockets of other programs here. It needs nothing but the standard library.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import socket
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

WITHIN_S = 1.0
BLOCKED, OUT, THROUGH = "blocked", "OUT", "through"
_AF_VSOCK, _AF_PACKET = 40, 17
_IO_URING_SETUP = 425
_CALLS_OF_THE_MACHINE = {  # keyctl, add_key, request_key, bpf, perf_event_open
    "x86_64": (250, 248, 249, 321, 298),
    "aarch64": (219, 217, 218, 280, 241),
}
_TIOCSTI = 0x5412
_KERNEL_SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger",
    "/sys/kernel/uevent_helper",
)
_DNS_QUERY = (
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06palyra\x07invalid\x00\x00\x01\x00\x01"
)

type Attempt = tuple[str, Callable[[], str]]


def main() -> None:
    asked = json.loads(sys.argv[1])
    report = {name: _outcome(attempt) for name, attempt in _attempts(asked)}
    sys.stdout.write(json.dumps(report))


def _outcome(attempt: Callable[[], str]) -> str:
    try:
        return attempt()
    except OSError as error:
        return f"{BLOCKED}: {error.strerror or type(error).__name__}"


def _attempts(asked: dict[str, list[list[str]]]) -> Iterator[Attempt]:
    for host, port in asked["listeners"]:
        yield f"tcp {host}", partial(_tcp, (host, int(port)))
        yield f"udp {host}", partial(_udp, (host, int(port)), b"palyra")
        yield f"icmp {host}", partial(_icmp, host)
    for (server,) in asked["resolvers"]:
        yield f"dns {server}", partial(_udp, (server, 53), _DNS_QUERY)
    for (path,) in asked["sockets"]:
        yield f"socket {path}", partial(_unix, path)
    for (path,) in asked["pipes"]:
        yield f"pipe {path}", partial(_pipe, path)
    for (path,) in asked["hidden"]:
        yield f"see {path}", partial(_see, Path(path))
    for (path,) in asked["read_only"]:
        yield f"write {path}", partial(_write, Path(path))
    yield "vsock", partial(_family, _AF_VSOCK)
    yield "packet", partial(_family, _AF_PACKET)
    yield "io_uring", partial(_no_such_call, (_IO_URING_SETUP,))
    yield "key rings", _key_rings
    yield "set-user-ID", _set_user_id
    yield "typing", _typing
    yield "interfaces", _interfaces
    yield "privileges", _privileges
    yield "core dumps", _core_dumps
    yield "first process", _first_process
    yield "kernel settings", _kernel_settings
    yield "user namespace", _user_namespace
    yield "processes", _processes
    yield "door", partial(_door, int(asked["door"][0][0]))


def _tcp(at: tuple[str, int]) -> str:
    with socket.create_connection(at, timeout=WITHIN_S):
        return f"{OUT}: connected"


def _udp(at: tuple[str, int], data: bytes) -> str:
    """Connected, so that the answer of an unreachable port comes back as an error."""
    family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(WITHIN_S)
        sender.connect(at)
        sender.send(data)
        sender.recv(512)
        return f"{OUT}: answered"


def _icmp(host: str) -> str:
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ":" in host else (socket.AF_INET, 1)
    )
    with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
        sender.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", (host, 0))
        return f"{OUT}: sent"


def _unix(path: str) -> str:
    """Whatever kind of socket it is. Connecting says nothing to who holds one for datagrams."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as sender:
            sender.settimeout(WITHIN_S)
            try:
                sender.connect(path)
            except OSError as error:
                if error.errno != errno.EPROTOTYPE:
                    raise
            else:
                return f"{OUT}: connected"
    return f"{OUT}: there"


def _pipe(path: str) -> str:
    """Named pipes are written to on read-only mounts, too. Opened it would disturb who reads."""
    return f"{OUT}: writable" if os.access(path, os.W_OK) else f"{BLOCKED}: not writable"


def _see(path: Path) -> str:
    if not path.is_dir():
        return f"{OUT}: {len(path.read_bytes())} bytes"
    found = sorted(entry.name for entry in path.iterdir())
    return f"{OUT}: {len(found)} entries" if found else f"{BLOCKED}: empty"


def _write(path: Path) -> str:
    probe = path / ".palyra-canary"
    probe.touch()
    with contextlib.suppress(OSError):
        probe.unlink()
    return f"{OUT}: written"


def _family(number: int) -> str:
    with socket.socket(number, socket.SOCK_DGRAM):
        return f"{OUT}: made"


def _no_such_call(numbers: tuple[int, ...]) -> str:
    """Called without any use, so that one that is there fails in another way."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in numbers:
        descriptor = libc.syscall(number, -1, 0, 0, 0, 0)
        if descriptor >= 0 or ctypes.get_errno() != errno.ENOSYS:
            return f"{OUT}: call {number} is there"
    return f"{BLOCKED}: {os.strerror(errno.ENOSYS)}"


def _key_rings() -> str:
    """Neither the calls, and others that are about the whole machine, nor the names of keys."""
    with contextlib.suppress(OSError):
        if Path("/proc/keys").read_bytes():
            return f"{OUT}: names of keys are seen"
    return _no_such_call(_CALLS_OF_THE_MACHINE[os.uname().machine])


def _set_user_id() -> str:
    """Left behind, such a file makes who runs it outside this account."""
    mode = 0o4700
    with tempfile.TemporaryDirectory() as place:
        made = Path(place, "made")
        with contextlib.suppress(PermissionError):
            os.close(os.open(made, os.O_CREAT | os.O_WRONLY, mode))
            return f"{OUT}: made"
        made.touch()
        made.chmod(mode)
        return f"{OUT}: set"


def _typing() -> str:
    """Into a terminal of its own, where nothing but the filter refuses it."""
    _, slave = os.openpty()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            fcntl.ioctl(slave, _TIOCSTI, b"x")
        except OSError:
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return f"{BLOCKED}: refused" if os.waitstatus_to_exitcode(status) == 0 else f"{OUT}: typed"


def _interfaces() -> str:
    names = sorted(name for _, name in socket.if_nameindex())
    return f"{BLOCKED}: only lo" if names == ["lo"] else f"{OUT}: {', '.join(names)}"


def _privileges() -> str:
    """No capability to use or to gain, no new privileges, a filter in force."""
    status = dict(
        line.split(":\t", 1)
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if ":\t" in line
    )
    wanted = {"CapEff": 0, "CapPrm": 0, "CapBnd": 0, "CapAmb": 0, "NoNewPrivs": 1, "Seccomp": 2}
    wrong = [name for name, value in wanted.items() if int(status[name], 16) != value]
    return f"{OUT}: {', '.join(wrong)}" if wrong else f"{BLOCKED}: none"


def _core_dumps() -> str:
    """Neither this process nor the first one has a limit with which a crash reaches the outside,
    and this one cannot get one: lowered to 0 it would start a handler."""
    for limit in ((0, 0), (4096, 4096)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, limit)
    pattern = Path("/proc/sys/kernel/core_pattern")
    said = pattern.read_text(encoding="utf-8", errors="replace") if pattern.exists() else ""
    first = Path("/proc/1/limits").read_text(encoding="ascii")
    own = Path("/proc/self/limits").read_text(encoding="ascii")
    return core_dumps_outcome(said, [_limits_of_cores(first), _limits_of_cores(own)])


def _limits_of_cores(limits: str) -> list[str]:
    line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    return line.split()[4:6]


def core_dumps_outcome(pattern: str, limits: list[list[str]]) -> str:
    """Where core_pattern pipes, 1 is what starts nothing; where it names a file, 0 does as well;
    where it names a socket, nothing helps. Pure."""
    first = pattern.strip()[:1]
    good = {"@": [], "|": [["1", "1"]]}.get(first, [["1", "1"], ["0", "0"]])
    bad = [limit for limit in limits if limit not in good]
    return f"{OUT}: limits {bad} for {first or 'none'}" if bad else f"{BLOCKED}: {limits[0][0]}"


def _first_process() -> str:
    """It ends this namespace with the launcher, and whoever traces it can make it forget that."""
    with contextlib.suppress(OSError):
        os.close(os.open("/proc/1/mem", os.O_RDWR))
        return f"{OUT}: its memory is open"
    with contextlib.suppress(OSError):
        return f"{OUT}: its input is {Path('/proc/1/fd/0').readlink()}"
    return f"{BLOCKED}: out of reach"


def _kernel_settings() -> str:
    """Opened for writing only: a canary that succeeds must change nothing."""
    reachable = []
    for path in _KERNEL_SETTINGS:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY))
            reachable.append(path)
    return f"{OUT}: {', '.join(reachable)}" if reachable else f"{BLOCKED}: read-only"


def _user_namespace() -> str:
    child = os.fork()
    if child == 0:
        try:
            os.unshare(os.CLONE_NEWUSER)
        except OSError:
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    return f"{BLOCKED}: refused" if os.waitstatus_to_exitcode(status) == 0 else f"{OUT}: made"


def _processes() -> str:
    """Only the namespace's first process, this one, and its child of just now."""
    seen = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return f"{OUT}: {len(seen)} seen" if len(seen) > 3 else f"{BLOCKED}: none"


def _door(port: int) -> str:
    """The one way that must be open."""
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as through:
        through.sendall(b"palyra-canary")
        return THROUGH if through.recv(16) == b"palyra-proxy" else f"{BLOCKED}: no answer"


if __name__ == "__main__":
    main()
