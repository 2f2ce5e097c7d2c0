"""Forward steps of a schema, and the copy that is kept before the first of them.

A step is a script of statements; it runs in one transaction with its new version number, so a crash
leaves the version before or after. There is no way back but the copy, which lies beside the
database as `NAME.version-N` and is never overwritten. Source: SQLite documentation, "VACUUM INTO".
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path


def statements(script: str) -> Iterator[str]:
    """Single statements (`executescript` would commit behind our back)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def keep_copy(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """The database as it is, beside itself and durable. Raises sqlite3.Error."""
    copy = path.with_name(f"{path.name}.version-{version}")
    if not copy.exists():
        write_copy(connection, copy)
    return copy


def write_copy(connection: sqlite3.Connection, target: Path) -> None:
    """One consistent, compact copy with mode 0600, whole or not there.

    Raises FileExistsError or sqlite3.Error.
    """
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        connection.execute("VACUUM INTO ?", (str(partial),))
        sync_file(partial)
        os.link(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(target.parent)


def sync_file(path: Path) -> None:
    """What the file holds survives power loss when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """The names in the directory survive power loss when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
