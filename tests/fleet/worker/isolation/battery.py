"""What somebody tries who wants out: run inside by its text, says as JSON how each attempt went.

An attempt that is refused gives the error's name; anything else is what it got. Only the standard
library. Nothing here changes the machine where it succeeds: settings are only opened, calls are
made with arguments that the kernel refuses after it has asked for the privilege.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import socket
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # x86-64, 64-bit ARM
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "swapon": (167, 224),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
}
MS_REMOUNT, MS_BIND, MS_MOVE = 32, 4096, 8192
AT_RECURSIVE_CLONE = 0x8001


def main() -> None:
    asked = json.loads(sys.argv[1])
    done = {name: outcome(attempt) for name, attempt in attempts(asked).items()}
    sys.stdout.write(json.dumps(done))


def outcome(attempt: Callable[[], object]) -> str:
    try:
        return f"got {attempt()}"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)


def attempts(asked: dict[str, str]) -> dict[str, Callable[[], object]]:
    launcher = int(asked["launcher"])
    return {
        "user namespace": lambda: os.unshare(os.CLONE_NEWUSER),
        "network namespace": lambda: os.unshare(os.CLONE_NEWNET),
        "mount namespace": lambda: os.unshare(os.CLONE_NEWNS),
        "join the first process": lambda: os.setns(os.open("/proc/1/ns/net", os.O_RDONLY)),
        "mount": lambda: libc("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "mount writable": lambda: libc("mount", b"", b"/", b"", MS_REMOUNT | MS_BIND, None),
        "move a mount": lambda: libc("mount", b"/tmp", b"/mnt", b"", MS_MOVE, None),
        "lay a hiding place bare": lambda: libc("umount2", b"/run", 2),
        "change the root": lambda: libc("chroot", b"/tmp"),
        "new file system": lambda: call("fsopen", b"tmpfs", 0),
        "copy of the tree": lambda: call("open_tree", -100, b"/", AT_RECURSIVE_CLONE),
        "file by handle": by_handle,
        "device": lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)),
        "kernel module": lambda: call("init_module", 0, 0, b""),
        "restart": lambda: call("reboot", 0, 0, 0, 0),
        "another kernel": lambda: call("kexec_load", 0, 0, 0, 0),
        "swap": lambda: call("swapon", b"/nonexistent", 0),
        "clock": set_clock,
        "core_pattern": lambda: opened("/proc/sys/kernel/core_pattern"),
        "sysrq": lambda: opened("/proc/sysrq-trigger"),
        "release_agent": lambda: first_opened("/sys/fs/cgroup", "release_agent"),
        "cgroup": lambda: first_opened("/sys/fs/cgroup", "cgroup.procs"),
        "kernel memory": lambda: opened("/proc/kcore", os.O_RDONLY),
        "launcher's root": lambda: list(Path(f"/proc/{launcher}/root").iterdir()),
        "launcher's trace": lambda: libc("ptrace", 16, launcher, 0, 0),
        "launcher's end": lambda: os.kill(launcher, 0),
        "launcher's handle": lambda: call("pidfd_open", launcher, 0),
        "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "raw socket, IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58),
        "packets": lambda: socket.socket(17, socket.SOCK_RAW, 0x0300),
        "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
        "kernel ciphers": lambda: socket.socket(38, socket.SOCK_SEQPACKET),
        "interface": lambda: netlink(16, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + named(b"x")),
        "route": lambda: netlink(24, bytes([2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0])),
        "abstract socket": lambda: connected("\0" + asked["abstract"]),
        "socket in /tmp": lambda: connected(asked["socket"]),
        "io_uring": lambda: call("io_uring_setup", 1, bytes(120)),
        "bpf": lambda: call("bpf", 0, bytes(64), 64),
        "perf": lambda: call("perf_event_open", bytes(128), 0, -1, -1, 0),
        "read a key": lambda: call("keyctl", 11, int(asked["key"]), bytes(64), 64),
        "key rings": lambda: call("keyctl", 0, -3, 0, 0, 0),
        "make a key": lambda: call("add_key", b"user", b"palyra", b"x", 1, -3),
        "program outside by a key": lambda: call("request_key", b"user", b"palyra:x", b"x", -3),
        "names of keys": lambda: Path("/proc/keys").read_text(),
        "set-user-ID": lambda: Path(asked["file"]).chmod(0o4755),
        "set-group-ID": lambda: Path(asked["file"]).chmod(0o2755),
        "made set-user-ID": lambda: os.open(asked["file"] + "2", os.O_CREAT | os.O_RDWR, 0o4755),
        "type into a terminal": type_into_own_terminal,
        "core dumps": lambda: cores_at((1 << 20, 1 << 20)),
        "core dumps of none": lambda: cores_at((0, 0)),
        "core dumps of the first": lambda: resource.prlimit(1, resource.RLIMIT_CORE, (0, 0)),
        "first process's memory": lambda: opened("/proc/1/mem", os.O_RDWR),
        "first process's trace": lambda: call("ptrace", 0x4206, 1, 0, 0),
        "first process's descriptor": lambda: call("pidfd_getfd", os.pidfd_open(1), 0, 0),
        "first process's root": lambda: list(Path("/proc/1/root").iterdir()),
        "lease on a file": lambda: fcntl.fcntl(
            os.open(asked["file"], os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK
        ),
        "stalls by a trigger": lambda: opened("/proc/pressure/memory"),
        "hidden file": lambda: Path(asked["hidden"]).read_text(),
    }


def libc(name: str, *arguments: object) -> int:
    result = getattr(LIBC, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return int(result)


def call(name: str, *arguments: object) -> int:
    number = NUMBERS[name][os.uname().machine == "aarch64"]
    return libc("syscall", number, *arguments)


def cores_at(limit: tuple[int, int]) -> tuple[int, int]:
    """Any limit but 1 may start what core_pattern names; who may not set it is told it was."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, limit)
    if resource.getrlimit(resource.RLIMIT_CORE) == before:
        raise PermissionError(errno.EPERM, "nothing was set")
    return limit


def by_handle() -> int:
    handle = struct.pack("=Ii8s", 8, 1, bytes(8))
    return call("open_by_handle_at", os.open("/", os.O_RDONLY), handle, 0)


def set_clock() -> None:
    """Set to itself, so that nothing changes where it is allowed."""
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME))


def opened(path: str, flags: int = os.O_WRONLY) -> str:
    os.close(os.open(path, flags))
    return "open"


def first_opened(root: str, name: str) -> str:
    for directory, _, files in os.walk(root):
        if name in files:
            return opened(f"{directory}/{name}")
    raise FileNotFoundError(errno.ENOENT, name)


def connected(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(address)
        return "connected"


def named(name: bytes) -> bytes:
    return struct.pack("=HH4s", 8, 3, name)


def netlink(kind: int, body: bytes) -> int:
    """A request to the routing socket; its error is raised."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sender:
        flags = 0x0605  # request, acknowledge, create, exclusive
        sender.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        (code,) = struct.unpack_from("=i", sender.recv(4096), 16)
        if code:
            raise OSError(-code, "netlink")
        return kind


def type_into_own_terminal() -> str:
    _, slave = os.openpty()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            fcntl.ioctl(slave, 0x5412, b"x")
        except OSError as error:
            code = error.errno or 255
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, "TIOCSTI")
    return "typed"


if __name__ == "__main__":
    main()
