"""A run's own directory: made empty and private (0700), and provably gone afterwards.

The directory and its parent are held by descriptors from the beginning. What is removed is what
was made, whatever has its name by then, and no link, mount or hard link leads the removal anywhere
else (`workspace_removal`). `remove` is True only if the directory that was made exists no more, its
name is free, and both were so in time. Programs that race with it can make it fail, and a failure
is reported; they cannot make it delete anything else.
"""

import asyncio
import contextlib
import errno
import logging
import os
import stat
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from palyra_fleet.wire.models import WorkspaceScopeModel
from palyra_fleet.worker import workspace_removal
from palyra_fleet.worker.left_behind import PREFIX, hold, left_behind, suffix

REMOVE_WITHIN_S: Final = 60.0
SWEEP_WITHIN_S: Final = 10.0
_TRIES: Final = 8
_REMOVAL: Final = Path(workspace_removal.__file__).resolve()
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_log = logging.getLogger(__name__)


class WorkspaceRefused(Exception):
    """No workspace can be made there; the text says why, for who chose the place."""


@dataclass(slots=True)
class Workspace:
    """The directory, by its absolute path without symbolic links, and by what holds it."""

    root: Path
    parent_fd: int = field(repr=False)
    root_fd: int = field(repr=False)
    removed: bool = False

    @classmethod
    def create(cls, parent: Path | None = None) -> "Workspace":
        """Make one below `parent` (the system's place for temporary files if None). Raises
        WorkspaceRefused where others could take its name away, or where nothing can be made."""
        place = _place(parent)
        with contextlib.ExitStack() as undone:
            try:
                parent_fd = os.open(place, _DIRECTORY)
                undone.callback(os.close, parent_fd)
                _refuse_a_place_of_others(place, os.fstat(parent_fd))
                root, root_fd = _made(place, parent_fd)
                undone.callback(os.close, root_fd)
                os.mkdir("tmp", 0o700, dir_fd=root_fd)
            except OSError as error:
                raise WorkspaceRefused(f"{place}: no workspace: {error.strerror}") from error
            undone.pop_all()
        return cls(root, parent_fd, root_fd)

    @property
    def temporary(self) -> Path:
        """Where the program's temporary files go (TMPDIR)."""
        return self.root / "tmp"

    def scope(self, *, read_only: bool = False) -> WorkspaceScopeModel:
        """The scope to ask a lease for: all of the directory and nothing else. Who asks for
        `read_only` has to enforce it; the fleet gives it to isolated workers only."""
        root = str(self.root)
        return WorkspaceScopeModel(workspace_root=root, allowed_paths=(root,), read_only=read_only)

    async def remove(self, within_s: float = REMOVE_WITHIN_S) -> bool:
        """Delete everything; True only if it is gone in time, and nothing has its name. May be
        asked again. Done by a process of its own, which is ended when it takes too long: a program
        may have made more files than anybody wants to wait for."""
        if self.root_fd < 0:
            return self.removed
        self.removed = await _removed(self.parent_fd, self.root_fd, self.root.name, within_s)
        if self.removed:
            self.close()
        return self.removed

    def close(self) -> None:
        """Let go of the descriptors, as `remove` does when all is gone. What was not removed is
        left where it is."""
        for held in (self.root_fd, self.parent_fd):
            if held >= 0:
                os.close(held)
        self.root_fd = self.parent_fd = -1


async def remove_left_behind(parent: Path | None, within_s: float = SWEEP_WITHIN_S) -> None:
    """Remove what launchers that were killed left where `create` makes workspaces, as far as it
    goes in time. What cannot be removed is left for the next run, and a warning says so."""
    place = _place(parent)
    try:
        parent_fd = os.open(place, _DIRECTORY)
    except OSError:  # `create` says so
        return
    found: list[tuple[str, int]] = []
    try:
        found = await asyncio.to_thread(left_behind, parent_fd)
        end_s = asyncio.get_running_loop().time() + within_s
        for name, root_fd in found:
            left_s = end_s - asyncio.get_running_loop().time()
            gone = left_s > 0 and await _removed(parent_fd, root_fd, name, left_s)
            if gone:
                _log.info("%s/%s: a launcher that was killed left it; removed", place, name)
            else:
                said = "%s/%s: a launcher that was killed left it; could not be removed yet"
                _log.warning(said, place, name)
    finally:
        for _, root_fd in found:
            os.close(root_fd)
        os.close(parent_fd)


def _place(parent: Path | None) -> Path:
    return Path(tempfile.gettempdir() if parent is None else parent).resolve()


async def _removed(parent_fd: int, root_fd: int, name: str, within_s: float) -> bool:
    """Empty the directory behind `root_fd` and take its name away, in a process of its own. True
    only if it is gone in time."""
    try:
        removal = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_REMOVAL)),
            *(str(parent_fd), str(root_fd), name),
            pass_fds=(parent_fd, root_fd),
            env={},
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(within_s):
            await removal.wait()
    except TimeoutError:
        return False
    finally:
        if removal.returncode is None:
            removal.kill()
            await removal.wait()
    return removal.returncode == 0


def _made(place: Path, parent_fd: int) -> tuple[Path, int]:
    """A new directory, held by its launcher alone. Raises OSError."""
    for _ in range(_TRIES):
        root = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=suffix(), dir=place))
        root_fd = os.open(root.name, _DIRECTORY, dir_fd=parent_fd)
        if hold(root_fd, parent_fd, root.name):
            return root, root_fd
        os.close(root_fd)
    raise OSError(errno.EBUSY, "others remove what is made here")


def _refuse_a_place_of_others(place: Path, status: os.stat_result) -> None:
    """Whoever may rename in the parent could put another directory under the workspace's name."""
    if status.st_uid not in {0, os.geteuid()}:
        raise WorkspaceRefused(f"{place} belongs to another account; no workspace is made there")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise WorkspaceRefused(
            f"{place} can be changed by everybody and has no sticky bit; no workspace is made there"
        )
