"""What exactly a machine withholds when bubblewrap could not make namespaces.

bubblewrap names the step that failed; which of a kernel's settings forbids it stands in `/proc`.
`what_is_missing` puts both together, and guesses nothing: where no setting explains the failure it
says what is left, a filter of system calls or a security module. Pure but for `Kernel.read`.
Sources: namespaces(7), user_namespaces(7), proc_sys_user(5), mount_namespaces(7), the bubblewrap
0.8 sources; for AppArmor's restriction the Ubuntu 24.04 release notes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

KINDS: Final = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
USER_NAMESPACES_NEEDED: Final = 2
"""One for the program, and one more in which no further one can be made."""
_FILTERED: Final = 2  # SECCOMP_MODE_FILTER, in proc_pid_status(5)


@dataclass(frozen=True, slots=True)
class Kernel:
    """What this kernel says of namespaces; None where it has no such setting."""

    has_user_namespaces: bool = True
    limits: Mapping[str, int] = field(default_factory=dict)
    unprivileged_userns_clone: int | None = None
    apparmor_restricts: int | None = None
    seccomp: int = 0
    is_root: bool = False
    covered: tuple[str, ...] = ()

    @classmethod
    def read(cls, proc: Path = Path("/proc")) -> "Kernel":
        limits = {kind: _number(proc / f"sys/user/max_{kind}_namespaces") for kind in KINDS}
        sysctl = proc / "sys/kernel"
        return cls(
            (proc / "self/ns/user").exists(),
            {kind: limit for kind, limit in limits.items() if limit is not None},
            _number(sysctl / "unprivileged_userns_clone"),
            _number(sysctl / "apparmor_restrict_unprivileged_userns"),
            _seccomp_mode(_text(proc / "self/status")),
            os.geteuid() == 0,
            _mounts_on_proc(_text(proc / "self/mountinfo")),
        )


def what_is_missing(said: str, kernel: Kernel) -> str:
    """What must be given, for what bubblewrap said; empty where that says it itself."""
    if "No space left" in said or "ENOSPC" in said:
        return _spent(kernel)
    if "nknown option" in said:
        return "bubblewrap 0.8 or newer"
    if "mount proc" in said:
        covered = f" (covered: {', '.join(kernel.covered)})" if kernel.covered else ""
        return f"a /proc that may be mounted anew, without parts that are covered{covered}"
    if not any(word in said for word in ("No permissions", "ermission denied", "not permitted")):
        return ""
    if not kernel.has_user_namespaces:
        return "a kernel with user namespaces (CONFIG_USER_NS)"
    if kernel.unprivileged_userns_clone == 0 and not kernel.is_root:
        return "user namespaces for this account: kernel.unprivileged_userns_clone is 0"
    if kernel.apparmor_restricts and not kernel.is_root:
        return (
            "an AppArmor profile that gives bubblewrap `userns`: "
            "kernel.apparmor_restrict_unprivileged_userns is 1"
        )
    if kernel.seccomp == _FILTERED:
        return (
            "a seccomp filter, of a container engine or a service, that lets this process make "
            "namespaces and mounts: one is in force"
        )
    return "leave to make namespaces: a security module or a chroot forbids it"


def _spent(kernel: Kernel) -> str:
    """Which limit is reached."""
    needed = {kind: USER_NAMESPACES_NEEDED if kind == "user" else 1 for kind in KINDS}
    low = [
        f"user.max_{kind}_namespaces is {limit} and must be {needed[kind]} or more"
        for kind, limit in kernel.limits.items()
        if limit < needed[kind]
    ]
    return "; ".join(low) or (
        "room for namespaces: those of user.max_*_namespaces are in use, or this process is in too "
        "many user namespaces already (32)"
    )


def _mounts_on_proc(mountinfo: str) -> tuple[str, ...]:
    places = (line.split()[4] for line in mountinfo.splitlines() if line.count(" ") > 4)
    return tuple(sorted({place for place in places if place.startswith("/proc/")}))


def _seccomp_mode(status: str) -> int:
    lines = (line.partition(":") for line in status.splitlines())
    return next((int(value) for name, _, value in lines if name == "Seccomp"), 0)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
