"""Snapshots of the fleet's state: one consistent file, made while the fleet runs; looked at; read.

A snapshot is a SQLite database as the fleet keeps it, compact, with mode 0600. `save` never
overwrites; both `save` and `inspect` check all of it (pages, every record, the whole event chain)
before they say that it is good. Putting one back is `restore`'s. Times: Unix ms.
"""

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import EnrolledKey, Record, ReferenceValue, Tombstone
from palyra_fleet.ledger.facts import Admission, WorkerRecord
from palyra_fleet.store import migrations
from palyra_fleet.store.event_chain import ChainHead, follow
from palyra_fleet.store.protocol import ChainBroken, StateUnusable, StoreFailed
from palyra_fleet.store.sqlite_connection import FLEET_DATABASE, chain_base, read_meta
from palyra_fleet.store.sqlite_rows import EVENT_COLUMNS, event_of, load_records

_WALK_ENTRIES: Final = 5_000
_UNREADABLE: Final = (KeyError, ValueError, TypeError, OverflowError, sqlite3.Error, ChainBroken)


@dataclass(frozen=True, slots=True)
class SnapshotSummary:
    """What a file holds, all of it verified."""

    sha256: str
    schema_version: int
    epoch: int
    highest_fence: int
    high_water_unix_ms: int
    events: int
    last_event_sha256: str
    workers: int
    quarantined: int
    banned: int
    live_leases: int
    open_grants: int
    tombstones: int
    launchers: int
    proxies: int
    reference_values: int


def save(state_dir: Path, target: Path) -> SnapshotSummary:
    """A checked copy of the state as it is now; the fleet may be running.

    Raises StateUnusable, or StoreFailed where it cannot be written.
    """
    database = state_dir / FLEET_DATABASE.files.database
    if not database.is_file():
        raise StateUnusable(
            f"{database}: there is no fleet state to save; name its folder with --state-dir"
        )
    if target.exists():
        raise StateUnusable(f"{target} is there already; a snapshot overwrites nothing")
    try:
        with closing(_reading(database, immutable=False)) as connection:
            migrations.write_copy(connection, target)
    except FileExistsError:
        raise StateUnusable(f"{target} is there already; a snapshot overwrites nothing") from None
    except (OSError, sqlite3.Error) as error:
        raise StoreFailed(f"{target}: cannot be written ({error})", ambiguous=False) from error
    try:
        return inspect(target)
    except StateUnusable:
        target.unlink(missing_ok=True)
        raise


def inspect(file: Path) -> SnapshotSummary:
    """Check all of a snapshot and say what it holds. Raises StateUnusable."""
    if not file.is_file():
        raise StateUnusable(f"{file}: there is no such file; name one that `snapshot save` wrote")
    try:
        with closing(_reading(file, immutable=True)) as connection:
            return _summary(connection, file)
    except _UNREADABLE as error:
        kind = str(error) if isinstance(error, ChainBroken) else type(error).__name__
        raise StateUnusable(f"{file}: is no snapshot that can be used ({kind})") from error


def _reading(path: Path, *, immutable: bool) -> sqlite3.Connection:
    """`immutable` for a file that nobody writes: nothing is created beside it."""
    more = "&immutable=1" if immutable else ""
    uri = f"{path.absolute().as_uri()}?mode=ro{more}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _summary(connection: sqlite3.Connection, file: Path) -> SnapshotSummary:
    found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise StateUnusable(f"{file}: damaged ({found})")
    meta = read_meta(connection)
    version, newest = int(meta["schema_version"]), FLEET_DATABASE.current_version
    if not FLEET_DATABASE.schema_version <= version <= newest:
        raise StateUnusable(f"{file}: schema version {version}; this release reads up to {newest}")
    head = walk_events(connection, chain_base(meta))
    if head != ChainHead(int(meta["chain_seq"]), meta["chain_sha256"]):
        raise StateUnusable(f"{file}: the event log does not end where it should")
    high_water = int(meta["high_water_unix_ms"])
    records = load_records(connection, high_water)
    return SnapshotSummary(
        sha256=_sha256(file),
        schema_version=version,
        epoch=int(meta["epoch"]),
        highest_fence=int(meta["highest_fence"]),
        high_water_unix_ms=high_water,
        events=head.seq,
        last_event_sha256=head.sha256,
        workers=_count(records, WorkerRecord),
        quarantined=_admitted(records, Admission.QUARANTINED),
        banned=_admitted(records, Admission.BANNED),
        live_leases=_count(records, WorkerLease),
        open_grants=_count(records, WorkerApprovalGrant),
        tombstones=_count(records, Tombstone),
        launchers=_enrolled(records, "launcher"),
        proxies=_enrolled(records, "proxy"),
        reference_values=_count(records, ReferenceValue),
    )


def walk_events(connection: sqlite3.Connection, head: ChainHead) -> ChainHead:
    """Follow every entry after `head`; the end. Raises ChainBroken."""
    while True:
        rows = connection.execute(
            f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 (a constant)
            (head.seq, _WALK_ENTRIES),
        ).fetchall()
        if not rows:
            return head
        head = follow(head, map(event_of, rows))


def _count(records: tuple[Record, ...], kind: type) -> int:
    return sum(isinstance(record, kind) for record in records)


def _admitted(records: tuple[Record, ...], admission: Admission) -> int:
    return sum(isinstance(r, WorkerRecord) and r.admission is admission for r in records)


def _enrolled(records: tuple[Record, ...], kind: str) -> int:
    return sum(isinstance(r, EnrolledKey) and r.kind == kind for r in records)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
