"""The system call filter, interpreted instruction by instruction."""

import platform
import socket
import struct

import pytest

from palyra_fleet.worker.isolation.system_calls import UnknownArchitecture, filter_program

X86_64, AARCH64 = 0xC000003E, 0xC00000B7
ALLOW, KILL = 0x7FFF0000, 0x80000000
NO_FAMILY, NO_CALL, DENIED = 0x00050061, 0x00050026, 0x00050001
PRETENDED = 0x00050000
"""The caller is told that it was done."""


def answer(program: bytes, number: int, *arguments: int, machine: int = X86_64) -> int:
    """What the kernel would answer: the program is run here, instruction by instruction."""
    six = (*arguments, *([0] * (6 - len(arguments))))
    data = struct.pack("=IIQ6Q", number, machine, 0, *six)
    steps = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    at = held = 0
    while True:
        operation, when_true, when_false, value = steps[at]
        at += 1
        match operation:
            case 0x20:
                (held,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += when_true if held == value else when_false
            case 0x35:
                at += when_true if held >= value else when_false
            case 0x45:
                at += when_true if held & value else when_false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown operation {operation:#x}")


@pytest.mark.parametrize(
    ("number", "argument", "expected"),
    [
        (41, socket.AF_INET, ALLOW),
        (41, socket.AF_INET6, ALLOW),
        (41, socket.AF_UNIX, ALLOW),
        (41, socket.AF_NETLINK, ALLOW),
        (53, socket.AF_UNIX, ALLOW),
        (41, 40, NO_FAMILY),  # AF_VSOCK: reaches the hypervisor
        (41, 17, NO_FAMILY),  # AF_PACKET
        (41, 31, NO_FAMILY),  # AF_BLUETOOTH
        (41, 38, NO_FAMILY),  # AF_ALG
        (41, 30, NO_FAMILY),  # AF_TIPC
        (41, 0, NO_FAMILY),
        (53, 40, NO_FAMILY),
        (425, 0, NO_CALL),
        (426, 0, NO_CALL),
        (427, 0, NO_CALL),
        (437, 0, NO_CALL),  # openat2: its mode lies where no filter looks
        (248, 0, NO_CALL),  # add_key
        (249, 0, NO_CALL),  # request_key: the kernel starts a program outside
        (250, 0, NO_CALL),  # keyctl
        (298, 0, NO_CALL),  # perf_event_open
        (321, 0, NO_CALL),  # bpf
        (424, 0, ALLOW),
        (428, 0, ALLOW),
        (0, 0, ALLOW),
        (59, 0, ALLOW),
        (0x40000000 + 41, socket.AF_INET, KILL),  # x32
        (0x40000000, 0, KILL),
        (0xFFFFFFFF, 0, NO_CALL),  # -1: no call, and none of x32's
        (0xFFFFFFFE, 0, KILL),
        (511, 0, ALLOW),
        (512, 0, KILL),  # rt_sigaction of x32, by its number alone on kernels before 5.4
        (514, 0, KILL),  # ioctl
        (520, 0, KILL),  # execve
        (547, 0, KILL),
        (548, 0, ALLOW),
    ],
)
def test_only_families_that_the_namespace_confines_can_be_made(number, argument, expected):
    assert answer(filter_program("x86_64"), number, argument) == expected


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        (16, (0, 0x5412), DENIED),  # TIOCSTI
        (16, (0, 0x541C), DENIED),  # TIOCLINUX
        (16, (0, 0xFFFF_FFFF_0000_5412), DENIED),  # the kernel looks at the lower half
        (16, (0, 0x5413), ALLOW),  # TIOCGWINSZ
        (16, (0x5412, 0), ALLOW),
        (90, (0, 0o4755), DENIED),  # chmod
        (90, (0, 0o2755), DENIED),
        (90, (0, 0o1777), ALLOW),
        (91, (0, 0o6755), DENIED),  # fchmod
        (268, (0, 0, 0o4755), DENIED),  # fchmodat
        (268, (0o4755, 0o4755, 0o755), ALLOW),
        (452, (0, 0, 0o4755), DENIED),  # fchmodat2
        (85, (0, 0o4755), DENIED),  # creat
        (133, (0, 0o104755), DENIED),  # mknod
        (259, (0, 0, 0o104755), DENIED),  # mknodat
        (2, (0, 0o100, 0o4755), DENIED),  # open that makes a file
        (2, (0, 0o100, 0o755), ALLOW),
        (2, (0, 0, 0o4755), ALLOW),  # no file is made, and the mode is whatever was there
        (257, (0, 0, 0o20200000, 0o4755), DENIED),  # openat with O_TMPFILE
        (257, (0, 0, 0o200000, 0o4755), ALLOW),  # O_DIRECTORY alone makes nothing
    ],
)
def test_nothing_is_typed_for_others_and_no_file_runs_as_its_owner(number, arguments, expected):
    assert answer(filter_program("x86_64"), number, *arguments) == expected


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        (160, (4, 0x7FFF_0000_1000), PRETENDED),  # setrlimit of RLIMIT_CORE
        (160, (0xFFFF_FFFF_0000_0004, 0x7FFF_0000_1000), PRETENDED),
        (160, (7, 0x7FFF_0000_1000), ALLOW),
        (302, (0, 4, 0x7FFF_0000_1000, 0), PRETENDED),  # prlimit
        (302, (1, 4, 0x7FFF_0000_0000, 0), PRETENDED),  # whose lower half is 0
        (302, (0, 4, 0x1000, 0), PRETENDED),
        (302, (0, 4, 0, 0x7FFF_0000_1000), ALLOW),  # only asks
        (302, (0, 4, 0x1000, 0x2000), DENIED),
        (302, (0, 4, 0x1000, 0x7FFF_0000_0000), DENIED),
        (302, (0, 7, 0x1000, 0x2000), ALLOW),
        (72, (3, 1024, 0), DENIED),  # fcntl with F_SETLEASE
        (72, (3, 1040, 0), DENIED),  # with F_SETDELEG
        (72, (3, 1025, 0), ALLOW),
        (72, (1024, 3, 0), ALLOW),
    ],
)
def test_the_limit_of_core_dumps_stays_and_nobody_is_kept_from_a_file(number, arguments, expected):
    assert answer(filter_program("x86_64"), number, *arguments) == expected


def test_calls_of_another_architecture_end_the_process():
    assert answer(filter_program("x86_64"), 41, 2, machine=0x40000003) == KILL


@pytest.mark.parametrize(
    ("number", "arguments", "expected"),
    [
        (198, (2,), ALLOW),
        (198, (40,), NO_FAMILY),
        (199, (40,), NO_FAMILY),
        (41, (40,), ALLOW),
        *((number, (), NO_CALL) for number in (217, 218, 219, 241, 280, 425, 437)),
        (29, (0, 0x5412), DENIED),
        (53, (0, 0, 0o4755), DENIED),
        (52, (0, 0o4755), DENIED),
        (33, (0, 0, 0o104755), DENIED),
        (56, (0, 0, 0o100, 0o4755), DENIED),
        (56, (0, 0, 0, 0o4755), ALLOW),
        (164, (4, 1), PRETENDED),
        (261, (0, 4, 1, 0), PRETENDED),
        (25, (0, 1024), DENIED),
        (514, (), ALLOW),  # no x32 there
    ],
)
def test_the_other_architecture_has_its_own_numbers(number, arguments, expected):
    assert answer(filter_program("aarch64"), number, *arguments, machine=AARCH64) == expected


def test_without_a_table_nothing_is_filtered_so_nothing_runs():
    with pytest.raises(UnknownArchitecture, match="not riscv64"):
        filter_program("riscv64")


def test_the_machine_of_this_test_has_a_filter():
    assert filter_program(platform.machine())
