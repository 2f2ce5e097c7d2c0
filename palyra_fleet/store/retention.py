"""Forgetting what finished long ago, without forgetting what still protects.

One bounded step: leases that ended before the horizon, then grants that are used up and rest under
no lease, then the oldest events beyond the number that is kept. Events are first written to an
archive file (JSON lines, one entry each, durable before anything is deleted), and the log goes on
from the digest of the last archived one: the files and the log are one chain, and each verifies by
itself. Evidence, tombstones and workers are never touched. Times: Unix ms.
"""

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from palyra_fleet.store.event_chain import ChainHead, canonical, follow
from palyra_fleet.store.failpoints import reached
from palyra_fleet.store.migrations import sync_directory
from palyra_fleet.store.protocol import ChainBroken, Pruned, Retention, StoreFailed
from palyra_fleet.store.sqlite_connection import chain_base, raise_mark, write_meta
from palyra_fleet.store.sqlite_database import SqliteDatabase, Write
from palyra_fleet.store.sqlite_rows import EVENT_COLUMNS, event_of
from palyra_fleet.wire.models import EventView

ARCHIVE: Final = "event-archive"


async def prune(
    database: SqliteDatabase, state_dir: Path, keep: Retention, now_unix_ms: int
) -> Pruned:
    """One step. Raises StoreConflict or StoreFailed; what was not deleted is still there."""
    old = await database.read(lambda connection, meta: _oldest_events(connection, meta, keep))
    if old:
        _archive(state_dir / ARCHIVE, old)
        reached("prune.after_archive")
    counts = {"leases": 0, "grants": 0}

    def forget(connection: sqlite3.Connection) -> None:
        raise_mark(connection, "high_water_unix_ms", now_unix_ms)
        horizon = now_unix_ms - keep.ended_ms
        counts.update(_forget_finished(connection, horizon, keep.step))
        if old:
            last = old[-1]
            write_meta(connection, {"chain_base_seq": last.seq, "chain_base_sha256": last.sha256})
            connection.execute("DELETE FROM events WHERE seq <= ?", (last.seq,))
        reached("prune.before_commit")

    await database.write_group([Write(0, (), forget)])
    full = max(len(old), *counts.values()) >= keep.step
    return Pruned(counts["leases"], counts["grants"], len(old), full)


def _oldest_events(
    connection: sqlite3.Connection, meta: Mapping[str, str], keep: Retention
) -> list[EventView]:
    base = chain_base(meta)
    beyond = int(meta["chain_seq"]) - base.seq - keep.events
    rows = connection.execute(
        f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 (a constant)
        (base.seq, max(0, min(beyond, keep.step))),
    ).fetchall()
    try:
        entries = [event_of(row) for row in rows]
        follow(base, entries)
    except ChainBroken as error:
        raise StoreFailed(f"nothing is archived: {error}", ambiguous=False) from error
    return entries


def _forget_finished(
    connection: sqlite3.Connection, horizon_unix_ms: int, most: int
) -> dict[str, int]:
    leases = connection.execute(
        "DELETE FROM leases WHERE lease_id IN (SELECT lease_id FROM leases WHERE live = 0"
        " AND ended_at_unix_ms < ? LIMIT ?)",
        (horizon_unix_ms, most),
    )
    grants = connection.execute(
        "DELETE FROM grants WHERE grant_id IN (SELECT grant_id FROM grants"
        " WHERE expires_at_unix_ms < ?"
        " AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.grant_id = grants.grant_id) LIMIT ?)",
        (horizon_unix_ms, most),
    )
    return {"leases": leases.rowcount, "grants": grants.rowcount}


def _archive(directory: Path, entries: list[EventView]) -> None:
    """Written anew if a step broke off before its deletion: the same entries, the same name."""
    name = f"events-{entries[0].seq:012}-{entries[-1].seq:012}.jsonl"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        fresh = directory / (name + ".new")
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(canonical(entry.model_dump()) + "\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(directory / name)
        sync_directory(directory)
    except OSError as error:
        text = f"cannot write the archive of events: {error.strerror}"
        raise StoreFailed(text, ambiguous=False) from error


def verify_archive(directory: Path) -> ChainHead:
    """Walk every archived file in order; where they end. Raises ChainBroken or OSError."""
    head = ChainHead()
    for path in sorted(directory.glob("events-*.jsonl")):
        with path.open(encoding="utf-8") as file:
            head = follow(head, (EventView.model_validate_json(line) for line in file))
    return head
