"""Putting a snapshot in place of the fleet's state, without setting anybody free.

What the snapshot cannot know is taken from the state that is there, if that can be read: whoever is
quarantined or banned now stays so, tombstones and evidence are added, epoch and fence go on above
both. If it cannot be read (lost, damaged, of a newer release), every worker of the snapshot is
quarantined unless the operator says otherwise; so too if it can be read but ends before its marker,
or has none. Either way epoch and fence leap to the time, above all that is known, so that no two
restores lead to the same; leases are void, approvals have to be given and evidence shown again, and
the fleet's time begins at `now`. The state that was there is set aside, never deleted.

Crash-safe: the new database is complete and durable before the sentinel says so; from then on a
restore that broke off is finished by the next, and the fleet refuses to start between.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from palyra_fleet.ledger.decision import Decision, Detail
from palyra_fleet.ledger.restoring import Confined, restored
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.store import migrations, state_directory
from palyra_fleet.store.event_chain import ChainHead, link_all
from palyra_fleet.store.failpoints import reached
from palyra_fleet.store.protocol import StateUnusable, StoreConflict, StoreFailed
from palyra_fleet.store.snapshot import SnapshotSummary, inspect
from palyra_fleet.store.sqlite_connection import (
    FLEET_DATABASE,
    bring_forward,
    connect,
    read_meta,
    transaction,
    write_meta,
)
from palyra_fleet.store.sqlite_rows import (
    EVIDENCE_COLUMNS,
    load_records,
    write_event,
    write_records,
)

FENCES_PER_MS: Final = 1 << 10
"""A restore leaps to the time, as epoch in Unix milliseconds and as fence in so many a millisecond:
more than a fleet can begin or give since 1970. What was begun or given before, after any earlier
restore of any snapshot too, is below, as long as the clock was not set back."""

type Before = Literal["read", "incomplete", "missing", "unreadable"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What is in place now. `set_aside`: where the state lies that was there."""

    source: SnapshotSummary
    before: Before
    epoch: int
    highest_fence: int
    kept_confined: int
    newly_quarantined: int
    set_aside: Path | None


@dataclass(frozen=True, slots=True)
class _Present:
    """What the state that is there says of what must not be lost."""

    epoch: int
    highest_fence: int
    confined: Confined
    evidence: tuple[tuple[object, ...], ...]


def restore(
    state_dir: Path,
    source: Path,
    now_unix_ms: int,
    *,
    replace: bool = False,
    workers_may_return: bool = False,
) -> Restored:
    """Put `source` in place. Raises StateUnusable or StoreFailed; then nothing has changed."""
    summary = inspect(source)
    state_directory.prepare(state_dir)
    with _locked(state_dir):
        finish_broken_restore(state_dir)
        database = state_dir / FLEET_DATABASE.files.database
        before, present = _read_present(state_dir, database)
        if before != "missing" and not replace:
            raise StateUnusable(
                f"{database}: there is state already ({before}); say --replace to set it aside and"
                " take the snapshot"
            )
        prepared = _prepared_file(state_dir)
        _copy(source, prepared)
        try:
            decision, epoch, fence = _prepare(
                prepared, summary, before, present, workers_may_return, now_unix_ms
            )
        except BaseException:
            prepared.unlink(missing_ok=True)
            raise
        reached("restore.prepared")
        _write_sentinel(state_dir)
        aside = finish_broken_restore(state_dir)
        confined = 0 if present is None else len(present.confined.workers)
        return Restored(summary, before, epoch, fence, confined, decision.quarantines, aside)


def finish_broken_restore(state_dir: Path) -> Path | None:
    """Move the prepared database in place if the sentinel says it is complete.

    Answers where the state that was there has been set aside.
    """
    sentinel = state_dir / state_directory.RESTORING
    if not sentinel.exists():
        return None
    prepared = _prepared_file(state_dir)
    database = state_dir / FLEET_DATABASE.files.database
    aside = None
    if prepared.exists():
        aside = _set_aside(database)
        migrations.sync_directory(state_dir)
        reached("restore.set_aside")
        prepared.rename(database)
        migrations.sync_directory(state_dir)
        reached("restore.in_place")
    state_directory.forget_head(state_dir)
    state_directory.write_marker(state_dir)
    sentinel.unlink()
    migrations.sync_directory(state_dir)
    return aside


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    held = state_directory.lock(state_dir)
    try:
        yield
    finally:
        os.close(held)


def _prepared_file(state_dir: Path) -> Path:
    return state_dir / f"{FLEET_DATABASE.files.database}.prepared"


def _copy(source: Path, target: Path) -> None:
    try:
        for leftover in (target, *_companions(target)):
            leftover.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with source.open("rb") as read, os.fdopen(os.open(target, flags, 0o600), "wb") as written:
            shutil.copyfileobj(read, written)
    except OSError as error:
        raise StoreFailed(f"{target}: cannot be written ({error.strerror})", False) from error


def _read_present(state_dir: Path, database: Path) -> tuple[Before, _Present | None]:
    if not database.exists() or database.stat().st_size == 0:
        return "missing", None
    try:
        present, head = _what_must_stay(database)
    except (StateUnusable, sqlite3.Error, KeyError, ValueError, TypeError, OverflowError):
        return "unreadable", None
    try:
        state_directory.check_head(state_dir, FLEET_DATABASE.files, head)
    except (StateUnusable, OSError):
        return "incomplete", present
    if not (state_dir / FLEET_DATABASE.files.marker).exists():  # nothing vouches for its end
        return "incomplete", present
    return "read", present


def _what_must_stay(database: Path) -> tuple[_Present, ChainHead]:
    """What the database says, its log of writes included, and where its event log ends. Raises what
    damage raises."""
    with closing(connect(database)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
        meta = read_meta(connection)
        if found != "ok" or int(meta["schema_version"]) > FLEET_DATABASE.current_version:
            raise StateUnusable(f"{database}: cannot be read by this release")
        state = LedgerState()
        records = load_records(connection, int(meta["high_water_unix_ms"]))
        state.load(records, int(meta["highest_fence"]), int(meta["high_water_unix_ms"]), 1)
        asked = f"SELECT {EVIDENCE_COLUMNS} FROM evidence ORDER BY rowid"  # noqa: S608 (a constant)
        evidence = connection.execute(asked).fetchall()  # whole: what is read on holds a lock
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        present = _Present(
            int(meta["epoch"]),
            int(meta["highest_fence"]),
            Confined.of(state),
            tuple(evidence),
        )
        return present, ChainHead(int(meta["chain_seq"]), meta["chain_sha256"])


def _prepare(
    prepared: Path,
    summary: SnapshotSummary,
    before: Before,
    present: _Present | None,
    workers_may_return: bool,
    now_unix_ms: int,
) -> tuple[Decision, int, int]:
    """Change the copy into what may be put in force; durable when this returns."""
    known = (summary,) if present is None else (summary, present)
    epoch = max(now_unix_ms, *(one.epoch + 1 for one in known))
    fence = max(now_unix_ms * FENCES_PER_MS, *(one.highest_fence + 1 for one in known))
    detail: Detail = {
        "snapshot_sha256": summary.sha256,
        "snapshot_epoch": summary.epoch,
        "snapshot_events": summary.events,
        "state_before": before,
        "workers_may_return": workers_may_return,
    }
    with closing(connect(prepared)) as connection:
        try:
            bring_forward(connection, prepared, FLEET_DATABASE)
            state = LedgerState()
            records = load_records(connection, summary.high_water_unix_ms)
            state.load(records, summary.highest_fence, summary.high_water_unix_ms, 1)
            confined = None if present is None else present.confined
            nobody_is_missed = before == "read" or workers_may_return
            decision = restored(state, confined, nobody_is_missed, detail, now_unix_ms)
            _write(connection, decision, () if present is None else present.evidence, epoch, fence)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (sqlite3.Error, StoreConflict) as error:
            raise StateUnusable(f"the snapshot cannot be made ready ({error})") from error
    for companion in _companions(prepared):
        companion.unlink(missing_ok=True)
    migrations.sync_file(prepared)
    return decision, epoch, fence


def _write(
    connection: sqlite3.Connection,
    decision: Decision,
    evidence: tuple[tuple[object, ...], ...],
    epoch: int,
    fence: int,
) -> None:
    meta = read_meta(connection)
    head = ChainHead(int(meta["chain_seq"]), meta["chain_sha256"])
    entries, head = link_all(head, decision.events, decision.at_unix_ms)
    with transaction(connection):
        write_records(connection, decision.records)
        connection.executemany(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?, ?, ?, ?)", evidence
        )
        for entry in entries:
            write_event(connection, entry)
        connection.execute("DELETE FROM meta WHERE key = 'clock_mark'")
        write_meta(
            connection,
            {
                "epoch": epoch,
                "highest_fence": fence,
                "high_water_unix_ms": decision.at_unix_ms,
                "chain_seq": head.seq,
                "chain_sha256": head.sha256,
            },
        )


def _companions(database: Path) -> tuple[Path, Path]:
    return database.with_name(database.name + "-wal"), database.with_name(database.name + "-shm")


def _set_aside(database: Path) -> Path | None:
    """Its log of writes goes with it: a database without its log is an older one."""
    there = [path for path in (database, *_companions(database)) if path.exists()]
    if not there:
        return None
    number = 1
    while any(_aside(database, number, path).exists() for path in (database, *there)):
        number += 1
    for path in reversed(there):
        path.rename(_aside(database, number, path))
    return _aside(database, number, database)


def _aside(database: Path, number: int, path: Path) -> Path:
    return database.with_name(f"{database.name}.replaced-{number}{path.name[len(database.name) :]}")


def _write_sentinel(state_dir: Path) -> None:
    path = state_dir / state_directory.RESTORING
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    migrations.sync_directory(state_dir)
