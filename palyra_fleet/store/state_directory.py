"""The state directory: modes, the lock against a second process, and the marker.

The marker says that state was created here once. A marker (or an authority) without a database
means that state was lost, and starting anew would forget every quarantine: refused, with a text
that says what to do. Directory 0700, files 0600; anything more open is refused. Source: `flock(2)`.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from palyra_fleet.store.migrations import sync_directory
from palyra_fleet.store.protocol import StateUnusable

AUTHORITY = "authority"
"""Where the certificate authority publishes its root; it outlives no lost ledger."""


@dataclass(frozen=True, slots=True)
class StateFiles:
    """The names of one database's files, and what beginning anew would lose."""

    database: str
    lock: str
    marker: str
    what_is_lost: str


FLEET_FILES = StateFiles("fleet.sqlite3", "fleet.lock", "fleet.marker", "every quarantine")


def prepare(state_dir: Path) -> None:
    """Create the directory, or refuse one that others may enter."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = state_dir.stat()
    if found.st_uid != os.geteuid():
        raise StateUnusable(f"{state_dir}: belongs to another user; the fleet's state must not")
    mode = found.st_mode & 0o777
    if mode & 0o077:
        raise StateUnusable(
            f"{state_dir}: mode {mode:o} is too open for the fleet's state; run: chmod 700 on it"
        )


def lock(state_dir: Path, name: str = FLEET_FILES.lock) -> int:
    """Hold the directory for this process; answers the descriptor that holds it.

    Each kind of state in the directory has a lock of its own, by `name`.
    """
    descriptor = os.open(state_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateUnusable(
            f"{state_dir}: another process uses this state; stop it first"
        ) from error
    return descriptor


def database_file(state_dir: Path, files: StateFiles = FLEET_FILES) -> tuple[Path, bool]:
    """The database file and whether state was here before. Creates an empty file if not."""
    path = state_dir / files.database
    was_here = any((state_dir / name).exists() for name in (files.marker, AUTHORITY))
    there = path.exists() and path.stat().st_size > 0
    if was_here and not there:
        raise StateUnusable(
            f"{path} is missing or empty, but this fleet had state; restore the file from a backup"
            f" (beginning anew forgets {files.what_is_lost}: only then also remove {files.marker}"
            f" and {AUTHORITY})"
        )
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise StateUnusable(f"{path}: mode {mode:o} is too open; run: chmod 600 on it")
    return path, was_here


def write_marker(state_dir: Path, files: StateFiles = FLEET_FILES) -> None:
    """Remember for ever that state was created here. Durable when this returns."""
    path = state_dir / files.marker
    if path.exists():
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"palyra fleet state was created here\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(state_dir)
