"""The system call filter of an isolated program: what namespaces do not hold. Pure.

A network namespace holds IPv4, IPv6, netlink and packets. It does not hold every family: AF_VSOCK
reaches the hypervisor, and families come and go with kernel modules. So only those that the
namespace confines, and Unix sockets, may be made; all others answer EAFNOSUPPORT, as on a kernel
without them. Calls that no namespace holds answer ENOSYS: io_uring, which makes sockets without the
call that is filtered here; key rings, whose keys are the account's, and for which the kernel starts
a program *outside* when one is asked for (`request-key`, which can look up a name in DNS); `bpf`
and `perf_event_open`, which reach what is pinned or runs on the whole machine; `openat2`, whose
arguments a filter cannot read. Words typed into a terminal for another reader (TIOCSTI, TIOCLINUX)
and files with set-user-ID or set-group-ID answer EPERM: such a file, left where the program works,
would make anybody on this machine the launcher's account; so does a lease on a file or directory
(F_SETLEASE, F_SETDELEG), which keeps everybody else who opens or changes it waiting. A change of
the limit of core dumps is answered with success and not made: at any other limit than 1 a crash may
start a handler outside (`core_dumps`), and a program may always lower its limits. Another
architecture's calls (x32, 32 bit) end the process; before Linux 5.4 those of x32 could be called by
their numbers, 512 to 547. The number -1 is no call of anybody's, though it looks like one of x32's:
programs ask for it to learn that there is none, and tracers put it in the place of a call that is
not to be made. It answers ENOSYS, as the kernel does.

Output: a classic BPF program as bytes, for `bwrap --seccomp`. Sources: seccomp(2), linux/filter.h,
linux/audit.h, the kernel's system call tables, keyrings(7), ioctl_tty(2), inode(7).
"""

import errno
import os
import socket
import stat
import struct
from dataclasses import dataclass
from typing import Final

_LOAD, _RETURN = 0x20, 0x06  # BPF_LD|W|ABS, BPF_RET|K
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # BPF_JMP with JEQ|K, JGE|K, JSET|K
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_*
_X32: Final = 0x40000000
_NO_CALL: Final = 0xFFFFFFFF
_IO_URING_AND_OPENAT2: Final = (425, 426, 427, 437)  # the same on every architecture
_TYPES_FOR_ANOTHER: Final = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_OF_X32: Final = (512, 547)
_SET_LEASE: Final = (1024, 1040)  # F_SETLEASE, F_SETDELEG
_LIMIT_OF_CORES: Final = 4  # RLIMIT_CORE
_TMPFILE: Final = 0o20000000  # O_TMPFILE without O_DIRECTORY
_RUNS_AS_ITS_OWNER: Final = stat.S_ISUID | stat.S_ISGID

CONFINED_FAMILIES: Final = (
    socket.AF_UNIX,
    socket.AF_INET,
    socket.AF_INET6,
    socket.AF_NETLINK,
)

type _Step = tuple[int, int, int, int]
"""Operation, steps to skip when it holds, when it does not, value."""


class UnknownArchitecture(Exception):
    """No table of system calls for this machine: nothing can be filtered, so nothing may run."""


@dataclass(frozen=True, slots=True)
class _Architecture:
    """Numbers of calls: `makes_socket` have the family first, `absent` are refused whole, `mode`
    have a file mode at this place of their arguments, `opens` flags and a mode. `has_x32` where
    calls of another kind have numbers of their own."""

    audit: int
    makes_socket: tuple[int, ...]
    ioctl: int
    absent: tuple[int, ...]
    mode: tuple[tuple[int, int], ...]
    opens: tuple[tuple[int, int, int], ...]
    fcntl: int
    setrlimit: int
    prlimit: int
    has_x32: bool


_ARCHITECTURES: Final = {
    "x86_64": _Architecture(
        audit=0xC000003E,
        makes_socket=(41, 53),  # socket, socketpair
        ioctl=16,
        absent=(248, 249, 250, 298, 321),  # add_key, request_key, keyctl, perf_event_open, bpf
        # creat, chmod, fchmod, mknod, mknodat, fchmodat, fchmodat2
        mode=((85, 1), (90, 1), (91, 1), (133, 1), (259, 2), (268, 2), (452, 2)),
        opens=((2, 1, 2), (257, 2, 3)),  # open, openat
        fcntl=72,
        setrlimit=160,
        prlimit=302,
        has_x32=True,
    ),
    "aarch64": _Architecture(
        audit=0xC00000B7,
        makes_socket=(198, 199),
        ioctl=29,
        absent=(217, 218, 219, 241, 280),
        mode=((52, 1), (33, 2), (53, 2), (452, 2)),  # fchmod, mknodat, fchmodat, fchmodat2
        opens=((56, 2, 3),),
        fcntl=25,
        setrlimit=164,
        prlimit=261,
        has_x32=False,
    ),
}


def filter_program(machine: str) -> bytes:
    """The filter for `machine` as `platform.machine()` names it. Raises UnknownArchitecture."""
    found = _ARCHITECTURES.get(machine)
    if found is None:
        raise UnknownArchitecture(
            f"isolation knows {', '.join(sorted(_ARCHITECTURES))}, not {machine}"
        )
    return b"".join(struct.pack("=HBBI", *step) for step in _steps(found))


def _steps(architecture: _Architecture) -> list[_Step]:
    absent = (*_IO_URING_AND_OPENAT2, *architecture.absent)
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *_for(_NO_CALL, [_refuse(errno.ENOSYS)]),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
        *(_kill_from(*_OF_X32) if architecture.has_x32 else ()),
        *(step for call in absent for step in _for(call, [_refuse(errno.ENOSYS)])),
        *(step for call in architecture.makes_socket for step in _for(call, _confined())),
        *_for(architecture.ioctl, _refused_where(1, _TYPES_FOR_ANOTHER)),
        *_for(architecture.fcntl, _refused_where(1, _SET_LEASE)),
        *_for(architecture.setrlimit, _limit_of_cores_stays()),
        *_for(architecture.prlimit, _limit_of_cores_is_only_read()),
        *(step for call, at in architecture.mode for step in _for(call, _plain_mode(at))),
        *(
            step
            for call, flags_at, mode_at in architecture.opens
            for step in _for(call, _plain_file(flags_at, mode_at))
        ),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _for(number: int, steps: list[_Step]) -> list[_Step]:
    """`steps`, which all end in an answer, for the call with this number alone."""
    return [(_EQUAL, 0, len(steps), number), *steps]


def _argument(at: int) -> _Step:
    """The lower half of an argument: the kernel looks at no more of what is checked here."""
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * at)


def _refuse(number: int) -> _Step:
    return (_RETURN, 0, 0, _ERRNO | number)


def _confined() -> list[_Step]:
    families = CONFINED_FAMILIES
    return [
        _argument(0),
        *((_EQUAL, len(families) - at, 0, int(family)) for at, family in enumerate(families)),
        _refuse(errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _kill_from(first: int, last: int) -> list[_Step]:
    return [(_AT_LEAST, 0, 2, first), (_AT_LEAST, 1, 0, last + 1), (_RETURN, 0, 0, _KILL)]


def _refused_where(at: int, values: tuple[int, ...]) -> list[_Step]:
    return [
        _argument(at),
        *((_EQUAL, len(values) - number, 0, value) for number, value in enumerate(values)),
        (_RETURN, 0, 0, _ALLOW),
        _refuse(errno.EPERM),
    ]


def _limit_of_cores_stays() -> list[_Step]:
    """Of setrlimit: answers 0 and does nothing. Programs that want no core dumps get none, and some
    would end where they are refused."""
    return [_argument(0), (_EQUAL, 1, 0, _LIMIT_OF_CORES), (_RETURN, 0, 0, _ALLOW), _refuse(0)]


def _limit_of_cores_is_only_read() -> list[_Step]:
    """Of prlimit: without a new limit it only asks. With a new one it is answered like setrlimit;
    who asks for the old one in the same call is refused, and would else read what nobody wrote."""
    return [
        _argument(1),
        *((_EQUAL, 1, 0, _LIMIT_OF_CORES), (_RETURN, 0, 0, _ALLOW)),
        *_if_null(2, (_RETURN, 0, 0, _ALLOW)),
        *_if_null(3, _refuse(0)),
        _refuse(errno.EPERM),
    ]


def _if_null(at: int, answer: _Step) -> list[_Step]:
    """`answer` where both halves of this argument are 0; else what follows."""
    upper = (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * at + 4)
    return [_argument(at), (_EQUAL, 0, 3, 0), upper, (_EQUAL, 0, 1, 0), answer]


def _plain_mode(at: int) -> list[_Step]:
    return [
        _argument(at),
        (_ANY_BIT, 0, 1, _RUNS_AS_ITS_OWNER),
        _refuse(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _plain_file(flags_at: int, mode_at: int) -> list[_Step]:
    """The mode counts only where a file is made; else the argument may hold anything."""
    return [
        _argument(flags_at),
        (_ANY_BIT, 1, 0, os.O_CREAT | _TMPFILE),
        (_RETURN, 0, 0, _ALLOW),
        *_plain_mode(mode_at),
    ]
