"""Secrets in mounted files (`file:name`): one directory, one value per file, read again on change.

A name is looked up below the configured directory. Symlinks are followed, as Kubernetes swaps them
to change a secret, and what they lead to must lie in that directory too. Refused: what others may
read or the group may write, what belongs to neither us nor root, what is no regular file, what is
larger than a secret. A file that is gone takes its secret with it. Blocking; call it in a thread.
"""

import os
import stat
from pathlib import Path
from typing import Final

from palyra_egress.credentials.binding import MAX_SECRET_CHARS, SecretValue
from palyra_egress.credentials.held import Findings, Held, SecretUnusable, secret_of
from palyra_fleet.private_files import FileStamp, stamp_of

_TOO_OPEN: Final = 0o027
_LINE_END_BYTES: Final = 2

type Look = tuple[str, FileStamp]


class SecretDirectory:
    """The files of one directory, by name. Remembers what it read, and what that file was then."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[Look, SecretValue]] = {}

    def read(self, names: frozenset[str], until_monotonic_ms: int | None) -> Findings:
        """The secrets as the files have them now."""
        held: dict[str, Held] = {}
        problems: dict[str, str] = {}
        known: dict[str, tuple[Look, SecretValue]] = {}
        for name in sorted(names):
            try:
                known[name] = self._read(name)
                held[name] = Held(known[name][1], until_monotonic_ms)
            except SecretUnusable as error:
                problems[name] = str(error)
        self._known = known
        return Findings(held, problems)

    def _read(self, name: str) -> tuple[Look, SecretValue]:
        real = self._inside(self._directory / name)
        before = self._known.get(name)
        look, given = read_secret_bytes(real, None if before is None else before[0])
        if given is None and before is not None:
            return before
        return look, _secret(real, given or b"")

    def _inside(self, path: Path) -> Path:
        """Where the file really lies; refuses what leads out of the directory."""
        try:
            real = path.resolve(strict=True)
            root = self._directory.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its links go round"
            raise SecretUnusable(f"{path}: cannot be read: {reason}") from None
        if not real.is_relative_to(root):
            raise SecretUnusable(f"{path}: leads out of {self._directory}")
        return real


def read_secret_file(path: Path) -> SecretValue:
    """One secret in one file, symlinks followed. Raises SecretUnusable."""
    return _secret(path, read_secret_bytes(path.resolve(), None)[1] or b"")


def read_secret_bytes(real: Path, known: Look | None) -> tuple[Look, bytes | None]:
    """What a file is and holds; no bytes if it is still what it was. Raises SecretUnusable.

    `real` must be resolved: a symlink in its last part is refused.
    """
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            _check(real, found)
            look = (str(real), stamp_of(found))
            if look == known:
                return look, None
            given = os.read(descriptor, MAX_SECRET_CHARS + _LINE_END_BYTES + 1)
            if stamp_of(os.fstat(descriptor)) != look[1]:
                raise SecretUnusable(f"{real}: is being written right now")
            return look, given
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SecretUnusable(f"{real}: cannot be read: {error.strerror}") from None


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SecretUnusable(f"{path}: is not a regular file")
    if found.st_uid not in (os.geteuid(), 0):
        raise SecretUnusable(f"{path}: belongs to another user; expected us or root")
    if found.st_mode & _TOO_OPEN:
        mode = found.st_mode & 0o777
        raise SecretUnusable(
            f"{path}: mode {mode:o} is too open; expected 640 or stricter"
            " (in Kubernetes, `defaultMode: 0440`)"
        )


def _secret(path: Path, given: bytes) -> SecretValue:
    try:
        return secret_of(given)
    except SecretUnusable as error:
        problem = str(error)
    raise SecretUnusable(f"{path}: {problem}")
