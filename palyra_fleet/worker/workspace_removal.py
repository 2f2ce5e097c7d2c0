"""Empties one directory and takes away its name, as a script of its own that can be ended.

Called with two numbers of open directories, the parent and the directory itself, and the
directory's name in its parent. It works on what those descriptors hold and never on a path, so it
makes no difference what anybody swaps for a link meanwhile: a directory is opened beneath the one
before it, never through a link (O_NOFOLLOW), and left alone where another file system is mounted on
it. Only directories get rights back, by their descriptor; of a file only the name goes, so a hard
link to a file elsewhere costs that file nothing. Depth costs nothing either: each directory that is
found is first moved up to the top. Exits 0 only if the directory that was opened exists no more.
Sources: openat(2), rename(2), proc_pid_fdinfo(5).
"""

import contextlib
import errno
import itertools
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROUNDS: Final = 3
"""How often the emptied directory is looked at anew: somebody may still be filling it."""
_BENEATH: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(parent_fd: int, root_fd: int, name: str) -> bool:
    """True only if the directory behind `root_fd` is gone and nothing else has taken its name. A
    link that has is taken away, anything more is left and never looked into; neither is believed.
    """
    os.fchmod(root_fd, 0o700)
    for _ in range(ROUNDS):
        _empty(root_fd)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(root_fd), _named(parent_fd, name)):
                os.rmdir(name, dir_fd=parent_fd)
        if os.fstat(root_fd).st_nlink == 0:
            break
    try:
        if stat.S_ISLNK(_named(parent_fd, name).st_mode):
            os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return os.fstat(root_fd).st_nlink == 0
    return False


def _named(parent_fd: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=parent_fd, follow_symlinks=False)


def _empty(root_fd: int) -> None:
    """Take away what is in it, as far as it goes. A directory's own directories come up here."""
    mount = mount_of(root_fd)
    ups = (f".palyra-removal-{os.getpid()}-{number}" for number in itertools.count())
    changed = True
    while changed:
        changed = False
        for name in _names(root_fd):
            with contextlib.suppress(OSError):
                changed |= _take_away(name, root_fd, mount, ups)


def _take_away(name: str, root_fd: int, mount: str, ups: Iterator[str]) -> bool:
    """Remove an entry of the top. True if something changed. Raises OSError for what stays."""
    if _unlinked(name, root_fd):
        return True
    changed = False
    with opened_beneath(name, root_fd, mount) as directory_fd:
        for inner in _names(directory_fd):
            with contextlib.suppress(OSError):
                _take_up(inner, directory_fd, root_fd, mount, ups)
                changed = True
    with contextlib.suppress(OSError):  # what is left in it has reasons of its own
        os.rmdir(name, dir_fd=root_fd)
        changed = True
    return changed


def _take_up(name: str, at_fd: int, root_fd: int, mount: str, ups: Iterator[str]) -> None:
    """Remove a file, or move a directory to the top. Raises OSError."""
    if not _unlinked(name, at_fd):
        with opened_beneath(name, at_fd, mount):  # only what its owner may write to can be moved
            os.rename(name, next(ups), src_dir_fd=at_fd, dst_dir_fd=root_fd)


def _unlinked(name: str, at_fd: int) -> bool:
    """Whether it was anything but a directory, and is gone."""
    try:
        os.unlink(name, dir_fd=at_fd)
    except IsADirectoryError:
        return False
    return True


@contextlib.contextmanager
def opened_beneath(name: str, at_fd: int, mount: str) -> Iterator[int]:
    """A directory beneath, with its owner's rights given back. Raises OSError, also for a link and
    for what is mounted there."""
    held = os.open(name, _BENEATH, dir_fd=at_fd)
    try:
        if mount_of(held) != mount:
            raise OSError(errno.EXDEV, "another file system is mounted there")
        Path(f"/proc/self/fd/{held}").chmod(0o700)  # this very directory, whatever its name is now
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
        try:
            yield listed
        finally:
            os.close(listed)
    finally:
        os.close(held)


def _names(directory_fd: int) -> list[str]:
    with os.scandir(directory_fd) as entries:
        return [entry.name for entry in entries]


def mount_of(descriptor: int) -> str:
    """Which mount it lies on: a bind mount of the same file system has another number."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))


if __name__ == "__main__":
    sys.exit(0 if remove_tree(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]) else 1)
