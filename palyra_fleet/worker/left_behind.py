"""Workspaces of launchers that were killed: found and removed by the next run in the same place.

A launcher holds a lock (flock) on its workspace for as long as it lives, so what can be locked has
lost its launcher. The name says in which boot of which kernel it was made, since a lock says
nothing to any other: where several machines share a place, or one was started anew, what others
made is left. Taken for ours is only a directory of this account that nobody else may enter, in a
place where nobody else may rename it: whoever may could give another directory of this account such
a name. It is removed as every workspace is, by what was opened (`workspace_removal`).
Sources: flock(2), random(4) (boot_id), inode(7) on the sticky bit.
"""

import fcntl
import os
import re
import stat
from pathlib import Path
from typing import Final

PREFIX: Final = "palyra-run-"
MOST_AT_ONCE: Final = 64
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID_FORM: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def suffix() -> str:
    """What names of workspaces end with on this kernel since it was booted; empty if not known."""
    try:
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return ""
    return f"-{boot_id[:13]}" if _BOOT_ID_FORM.fullmatch(boot_id) else ""


def hold(root_fd: int, parent_fd: int, name: str) -> bool:
    """Lock a workspace that was made just now. False where another launcher took it for left
    behind in between: make another. Where the file system has no locks, nothing is ever taken."""
    try:
        fcntl.flock(root_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    try:
        named = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(root_fd), named)


def left_behind(place_fd: int) -> list[tuple[str, int]]:
    """Name and descriptor of workspaces in an open directory whose launcher is gone; they are
    locked, and the caller closes them. Nothing where the names in it are not ours alone to give, or
    where it cannot be read."""
    end = suffix()
    if not end or not _names_are_ours(os.fstat(place_fd)):
        return []
    found: list[tuple[str, int]] = []
    try:
        with os.scandir(place_fd) as entries:
            for entry in entries:
                if len(found) == MOST_AT_ONCE:
                    break
                if not entry.name.startswith(PREFIX) or not entry.name.endswith(end):
                    continue
                descriptor = _taken(place_fd, entry.name)
                if descriptor is not None:
                    found.append((entry.name, descriptor))
    except OSError:
        pass
    return found


def _names_are_ours(place: os.stat_result) -> bool:
    """Whether nobody but us and root may rename what is ours there."""
    others_write = place.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    is_ours = place.st_uid in {0, os.geteuid()}
    return is_ours and (not others_write or bool(place.st_mode & stat.S_ISVTX))


def _taken(place_fd: int, name: str) -> int | None:
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=place_fd)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and not status.st_mode & _OTHERS:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:  # its launcher lives, or the file system has no locks
        pass
    os.close(descriptor)
    return None
