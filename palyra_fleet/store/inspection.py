"""A look at a database of the fleet that changes nothing and holds nobody up.

Opened read-only, beside a fleet that runs or with none: pages checked, and the event chain walked
from where it begins to the end that `meta` named when the look began. What is appended meanwhile is
left alone; each stretch of the walk is a read of its own, so that no checkpoint waits. Raises
StateUnusable or ChainBroken. Source: SQLite documentation, "Write-Ahead Logging", read-only.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from palyra_fleet.store.event_chain import ChainHead, follow
from palyra_fleet.store.protocol import ChainBroken, SchemaUnknown, StateUnusable
from palyra_fleet.store.sqlite_connection import DatabaseDesign, chain_base, read_meta
from palyra_fleet.store.sqlite_rows import EVENT_COLUMNS, event_of

_WALK_ENTRIES = 2_000


@dataclass(frozen=True, slots=True)
class Inspection:
    """What held."""

    events: int
    last_seq: int
    high_water_unix_ms: int
    schema_version: int
    has_current_schema: bool


def inspect(state_dir: Path, design: DatabaseDesign) -> Inspection:
    """Check the database of this design in `state_dir`."""
    path = state_dir / design.files.database
    if not path.exists() or path.stat().st_size == 0:
        raise StateUnusable(f"{path} is missing or empty; restore it from a backup")
    try:
        with read_only(path) as connection:
            return _inspect(connection, path, design)
    except (KeyError, ValueError, TypeError, OverflowError, sqlite3.Error) as error:
        raise StateUnusable(f"{path}: damaged ({error}); restore it from a backup") from error


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write. Without a write-ahead log beside it nobody has the file open,
    and it is read as it lies, so that the look leaves no files behind."""
    is_at_rest = not path.with_name(path.name + "-wal").exists()
    query = "?mode=ro&immutable=1" if is_at_rest else "?mode=ro"
    connection = sqlite3.connect(path.absolute().as_uri() + query, uri=True, timeout=5)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        yield connection
    finally:
        connection.close()


def _inspect(connection: sqlite3.Connection, path: Path, design: DatabaseDesign) -> Inspection:
    pages = connection.execute("PRAGMA quick_check").fetchone()[0]
    if pages != "ok":
        raise StateUnusable(f"{path}: damaged ({pages}); restore it from a backup")
    meta = read_meta(connection)
    version = int(meta["schema_version"])
    if not design.schema_version <= version <= design.current_version:
        raise SchemaUnknown(
            f"{path}: schema version {version}, and this release knows {design.schema_version}"
            f" to {design.current_version}"
        )
    end = ChainHead(int(meta["chain_seq"]), meta["chain_sha256"])
    base = chain_base(meta)
    head = base
    while head.seq < end.seq:
        head = _walk_on(connection, path, head, end)
    if head != end:
        raise ChainBroken(f"{path}: event {head.seq} is not the one that was written last")
    return Inspection(
        events=end.seq - base.seq,
        last_seq=end.seq,
        high_water_unix_ms=int(meta["high_water_unix_ms"]),
        schema_version=version,
        has_current_schema=version == design.current_version,
    )


def _walk_on(
    connection: sqlite3.Connection, path: Path, head: ChainHead, end: ChainHead
) -> ChainHead:
    query = f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"  # noqa: S608 (a constant)
    rows = connection.execute(query, (head.seq, end.seq, _WALK_ENTRIES)).fetchall()
    if rows:
        try:
            return follow(head, map(event_of, rows))
        except ChainBroken as error:
            pruned = chain_base(read_meta(connection))
            if pruned.seq <= head.seq:
                raise ChainBroken(f"{path}: {error}") from error
            return pruned
    pruned = chain_base(read_meta(connection))
    if pruned.seq <= head.seq:
        raise ChainBroken(f"{path}: events after {head.seq} are missing")
    return pruned
