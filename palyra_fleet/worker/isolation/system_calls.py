"""The system call filter of an isolated program: no socket family that leaves its namespace. Pure.

A network namespace holds IPv4, IPv6, netlink and packets. It does not hold every family: AF_VSOCK
reaches the hypervisor, and families come and go with kernel modules. So only those that the
namespace confines, and Unix sockets, may be made; all others answer EAFNOSUPPORT, as on a kernel
without them. io_uring makes sockets without the system call that is filtered here, so it answers
ENOSYS; programs fall back. Another architecture's calls (x32, 32 bit) end the process.

Output: a classic BPF program as bytes, for `bwrap --seccomp`. Sources: seccomp(2), linux/filter.h,
linux/audit.h, the kernel's system call tables.
"""

import errno
import socket
import struct
from dataclasses import dataclass
from typing import Final

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGE|K
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # struct seccomp_data
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_*
_X32: Final = 0x40000000
_IO_URING: Final = (425, 426, 427)  # setup, enter, register: the same on every architecture

CONFINED_FAMILIES: Final = (
    socket.AF_UNIX,
    socket.AF_INET,
    socket.AF_INET6,
    socket.AF_NETLINK,
)


class UnknownArchitecture(Exception):
    """No table of system calls for this machine: nothing can be filtered, so nothing may run."""


@dataclass(frozen=True, slots=True)
class _Architecture:
    audit: int
    socket: int
    socketpair: int


_ARCHITECTURES: Final = {
    "x86_64": _Architecture(0xC000003E, 41, 53),
    "aarch64": _Architecture(0xC00000B7, 198, 199),
}


def filter_program(machine: str) -> bytes:
    """The filter for `machine` as `platform.machine()` names it. Raises UnknownArchitecture."""
    found = _ARCHITECTURES.get(machine)
    if found is None:
        raise UnknownArchitecture(
            f"isolation knows {', '.join(sorted(_ARCHITECTURES))}, not {machine}"
        )
    return b"".join(struct.pack("=HBBI", *step) for step in _steps(found))


def _steps(architecture: _Architecture) -> list[tuple[int, int, int, int]]:
    """(operation, steps to skip when true, when false, value) each."""
    families = [
        (_EQUAL, len(CONFINED_FAMILIES) - index, 0, int(family))
        for index, family in enumerate(CONFINED_FAMILIES)
    ]
    makes_socket = [
        (_EQUAL, 1, 0, architecture.socket),
        (_EQUAL, 0, len(families) + 2, architecture.socketpair),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        *families,
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
    ]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        (_AT_LEAST, 0, 2, _IO_URING[0]),
        (_AT_LEAST, 1, 0, _IO_URING[-1] + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        *makes_socket,
        (_RETURN, 0, 0, _ALLOW),
    ]
