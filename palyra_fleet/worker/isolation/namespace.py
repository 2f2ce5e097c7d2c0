"""How a program is put into namespaces of its own: the arguments of bubblewrap. Pure.

User, mount, process, network, IPC, host-name and cgroup namespaces are new, every capability is
dropped, nested user namespaces are off, and the network has nothing but a loopback of its own. The
file system is the machine's, read-only, but for the workspace and the working directory; where
other programs leave sockets (`/run`, `/tmp`, `/var/tmp`) there are empty directories, and over the
installation's own state, which holds keys and tokens, as well. What lies under such a place and is
needed is shown again. When the launcher dies, everything inside dies.
Source: bwrap(1), version 0.8.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EMPTIED: Final = (Path("/run"), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 hidden, not used
KERNEL_SETTINGS: Final = tuple(
    Path("/proc", name)
    for name in ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "pressure")
)
"""Files there are the whole machine's and open to uid 0 without any capability. A launcher that is
root gives its program that uid: `core_pattern` would run what it names, outside, as root."""
KEY_NAMES: Final = (Path("/proc/keys"), Path("/proc/key-users"))
"""What keys the account has; key rings themselves are closed by the filter."""
_NOTHING: Final = Path("/dev/null")
"""Shown in place of a file: mounted without devices, so that it cannot be opened."""
PROXY_PORT: Final = 3128
"""Where the proxy is reached inside. Each namespace has its own loopback, so nothing collides."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory, and which one it was when it was decided what a program may do there: device and
    inode, the same in every mount of it."""

    path: Path
    identity: tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """What of the file system a program sees. Paths are absolute and resolved.

    `writable` are shown and may be changed, `readable` are shown where they would be hidden,
    `protected` lie in what is writable and may not be changed, `hidden` directories are empty and
    `unreadable` files cannot be opened whatever shows what is around them. Where `places` are
    something else once they are mounted, nothing runs.
    """

    writable: tuple[Path, ...]
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    working_directory: Path = Path("/")
    protected: tuple[Path, ...] = ()
    unreadable: tuple[Path, ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def pinned(self) -> tuple[Path, ...]:
        """Directories that lead from what is writable to what is covered, in this order. Mounted on
        themselves they cannot be renamed; else a program could put a decoy under their name, which
        the next launcher would take for the installation's state."""
        covered = (*self.hidden, *self.unreadable, *self.protected)
        between = {
            above
            for path in covered
            for place in self.writable
            if path.is_relative_to(place)
            for above in path.parents
            if above.is_relative_to(place) and above != place
        }
        return tuple(sorted(between))


def namespace_arguments(bubblewrap: str, view: View, filter_fd: int) -> list[str]:
    """bubblewrap's arguments up to and with `--`; the program and its arguments follow."""
    return [
        bubblewrap,
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--as-pid-1",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--clearenv",
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *_shown("--ro-bind", (path for path in KERNEL_SETTINGS if path.exists())),
        *_shown_as(_NOTHING, (path for path in KEY_NAMES if path.exists())),
        *_each("--tmpfs", (path for path in EMPTIED if path.is_dir() and not path.is_symlink())),
        *_shown(
            "--ro-bind", _outermost(path for path in view.readable if _is_under(path, EMPTIED))
        ),
        *_shown("--bind", view.writable),
        *_shown("--bind", view.pinned),
        *_shown("--ro-bind", view.protected),
        *_each("--tmpfs", view.hidden),
        *_shown_as(_NOTHING, view.unreadable),
        *("--chdir", str(view.working_directory)),
        *("--seccomp", str(filter_fd)),
        "--",
    ]


def _is_under(path: Path, places: Iterable[Path]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Those that lie below no other of them: what is shown with its directory has no place where it
    could be mounted once more, if it is a link."""
    given = tuple(dict.fromkeys(paths))
    return tuple(path for path in given if not _is_under(path.parent, given))


def _each(option: str, paths: Iterable[Path]) -> list[str]:
    return [word for path in paths for word in (option, str(path))]


def _shown_as(shown: Path, paths: Iterable[Path]) -> list[str]:
    return [word for path in paths for word in ("--ro-bind", str(shown), str(path))]


def _shown(option: str, paths: Iterable[Path]) -> list[str]:
    return [word for path in paths for word in (option, str(path), str(path))]
