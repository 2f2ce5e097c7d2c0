"""Files and directories that must be their owner's alone: modes, owners, kinds. Looks, no more."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from palyra_fleet.doctor.finding import Finding, fail, ok

_OTHERS = 0o077


def private_directory(check: str, path: Path, starting: str) -> Iterator[Finding]:
    """The directory is there, ours, and nobody else may enter it; `starting` is the command that
    makes it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        said = f"{path} does not exist: nothing was started here, or it was removed"
        remedy = (
            f"start it with {starting}; where it was started elsewhere, set PALYRA_HOME to that"
        )
        yield fail(check, said, remedy)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fail(check, f"{path} is not a directory", "move it away")
        return
    problem = _too_open(path, found)
    remedy = f"chmod 700 {path}, and look who could read what is in it"
    yield fail(check, problem, remedy) if problem else ok(check, f"{path}: ours alone")


def private_files(check: str, paths: Iterable[Path]) -> Iterator[Finding]:
    """Of these files, whatever is there is a regular file of ours and nobody else's."""
    looked_at = 0
    faults = 0
    for path in paths:
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        looked_at += 1
        problem = _too_open(path, found)
        remedy = f"chmod 600 {path}, and replace the secret that was in it"
        if stat.S_ISLNK(found.st_mode):
            problem = f"{path} is a symbolic link"
            remedy = "put the file itself in its place, mode 600"
        elif not stat.S_ISREG(found.st_mode):
            problem = f"{path} is not a regular file"
            remedy = "move it away, and restore the file from a backup"
        if problem:
            faults += 1
            yield fail(check, problem, remedy)
    if not faults:
        yield ok(check, f"{looked_at} files with secrets, each ours alone")


def _too_open(path: Path, found: os.stat_result) -> str:
    if found.st_uid != os.geteuid():
        return f"{path} belongs to another user"
    mode = stat.S_IMODE(found.st_mode)
    return f"{path}: mode {mode:o} is too open" if mode & _OTHERS else ""
