"""The state directory: modes, the lock against a second process, and the marker.

The marker says that state was created here once. A marker (or an authority) without a database
means that state was lost, and starting anew would forget every quarantine: refused, with a text
that says what to do. The fleet's marker also says how far the event log had come: a database that
ends before it has lost what was acknowledged (a log of writes that is damaged or was removed, an
older copy put in its place). It is written after each commit and not synced, so it survives the
process and is never ahead of the database. Directory 0700, files 0600; anything more open is
refused. Source: `flock(2)`.
"""

import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

from palyra_fleet.store.event_chain import ChainHead
from palyra_fleet.store.migrations import sync_directory, sync_file
from palyra_fleet.store.protocol import StateUnusable

AUTHORITY = "authority"
"""Where the certificate authority publishes its root; it outlives no lost ledger."""


RESTORING = "fleet.restoring"
"""Says that a snapshot is ready to be put in place, and may not be in place yet."""


@dataclass(frozen=True, slots=True)
class StateFiles:
    """The names of one database's files, and what beginning anew would lose."""

    database: str
    lock: str
    marker: str
    what_is_lost: str
    keeps_head: bool = False


FLEET_FILES = StateFiles("fleet.sqlite3", "fleet.lock", "fleet.marker", "every quarantine", True)
_MARK = b"palyra fleet state was created here\n"
_HEAD = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")


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
    if files is FLEET_FILES and (state_dir / RESTORING).exists():
        text = "a restore broke off; run `palyra-fleet snapshot restore` again to finish it"
        raise StateUnusable(f"{state_dir}: {text}")
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
        os.write(descriptor, _MARK)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(state_dir)


class HeadKeeper:
    """Where the event log ends, beside the database. `close` it."""

    def __init__(self, state_dir: Path, files: StateFiles) -> None:
        self._file = os.open(state_dir / files.marker, os.O_RDWR | os.O_CLOEXEC)

    def write(self, head: ChainHead) -> None:
        os.pwrite(self._file, f"{head.seq:020} {head.sha256}\n".encode(), len(_MARK))

    def close(self) -> None:
        os.close(self._file)


def check_head(state_dir: Path, files: StateFiles, found: ChainHead) -> None:
    """Refuse a database that ends before its marker. One of an earlier release has no head."""
    path = state_dir / files.marker
    content = path.read_bytes() if files.keeps_head and path.exists() else _MARK
    if content in {_MARK, b""}:
        return
    kept = _HEAD.fullmatch(content[len(_MARK) :])
    if kept is None or not content.startswith(_MARK):
        raise StateUnusable(f"{path}: damaged, so nobody can tell if {files.database} is whole")
    seq, sha256 = int(kept[1]), kept[2].decode()
    if found.seq < seq or (found.seq == seq and found.sha256 != sha256):
        raise StateUnusable(
            f"{state_dir / files.database}: the event log ends at {found.seq}, but had come to"
            f" {seq}: the file is older than the fleet, or its -wal file was damaged or removed;"
            " put the newest one back, or a snapshot with `palyra-fleet snapshot restore`"
        )


def forget_head(state_dir: Path, files: StateFiles = FLEET_FILES) -> None:
    """Another event log is put in place. Durable when this returns."""
    path = state_dir / files.marker
    if path.exists():
        os.truncate(path, len(_MARK))
        sync_file(path)
