"""SqliteFleetStore: the embedded store. One file, one writer thread, one process.

What is durable, and when, is `SqliteDatabase`'s; what shares a transaction is `GroupCommit`'s; here
is what the fleet keeps in it. Reads see everything that was submitted before them.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from palyra_fleet.clock import ClockMark
from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import Decision, EvidenceRecord
from palyra_fleet.store import codec, retention
from palyra_fleet.store.group_commit import GroupCommit
from palyra_fleet.store.protocol import (
    Pruned,
    Retention,
    Snapshot,
    StateUnusable,
    StoreConflict,
    StoreFailed,
)
from palyra_fleet.store.sqlite_connection import FLEET_DATABASE, transaction, write_meta
from palyra_fleet.store.sqlite_database import SqliteDatabase, Write
from palyra_fleet.store.sqlite_rows import (
    EVENT_COLUMNS,
    EVIDENCE_COLUMNS,
    event_of,
    load_records,
    write_records,
)
from palyra_fleet.wire.models import EventView


class SqliteFleetStore:
    """FleetStore on SQLite. `open` before anything else."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._database = SqliteDatabase(state_dir, FLEET_DATABASE)
        self._group = GroupCommit(self._database.write_group)

    async def open(self, now_unix_ms: int) -> Snapshot:
        return await self._database.open(
            lambda connection, meta: _begin(connection, meta, now_unix_ms)
        )

    async def close(self) -> None:
        await self._group.flush()
        await self._database.close()

    def submit(self, decision: Decision, mark: ClockMark | None = None) -> asyncio.Future[None]:
        return self._group.submit(
            Write(
                decision.at_unix_ms,
                decision.events,
                lambda connection: write_records(connection, decision.records),
                {"highest_fence": decision.highest_fence},
                {} if mark is None else {"clock_mark": codec.mark_text(mark)},
            )
        )

    async def commit(self, decision: Decision, mark: ClockMark | None = None) -> None:
        try:
            await self.submit(decision, mark)
        except (StoreConflict, StoreFailed):
            self._group.resume()
            raise

    async def reload(self) -> Snapshot:
        await self._group.flush()
        snapshot = await self._database.read(_load)
        self._group.resume()
        return snapshot

    async def prune(self, keep: Retention, now_unix_ms: int) -> Pruned:
        await self._group.flush()
        return await retention.prune(self._database, self._state_dir, keep, now_unix_ms)

    async def lease(self, lease_id: str) -> WorkerLease | None:
        rows = await self._rows("SELECT body FROM leases WHERE lease_id = ?", lease_id)
        return codec.read_lease(str(rows[0][0])) if rows else None

    async def leases(
        self, limit: int, before_fence: int | None = None, *, ended: bool = False
    ) -> tuple[WorkerLease, ...]:
        where, values = _where(("fence < ?", before_fence), ("live = ?", 0 if ended else None))
        query = f"SELECT body FROM leases {where} ORDER BY fence DESC LIMIT ?"  # noqa: S608 (constants)
        rows = await self._rows(query, *values, limit)
        return tuple(codec.read_lease(str(body)) for (body,) in rows)

    async def grant(self, grant_id: str) -> WorkerApprovalGrant | None:
        rows = await self._rows("SELECT body FROM grants WHERE grant_id = ?", grant_id)
        return codec.read_grant(str(rows[0][0])) if rows else None

    async def grants(
        self, limit: int, before: str | None = None
    ) -> tuple[WorkerApprovalGrant, ...]:
        where, values = _where(("grant_id < ?", before))
        query = f"SELECT body FROM grants {where} ORDER BY grant_id DESC LIMIT ?"  # noqa: S608 (constants)
        rows = await self._rows(query, *values, limit)
        return tuple(codec.read_grant(str(body)) for (body,) in rows)

    async def evidence(self, evidence_sha256: str) -> EvidenceRecord | None:
        query = f"SELECT {EVIDENCE_COLUMNS} FROM evidence WHERE evidence_sha256 = ?"  # noqa: S608 (a constant)
        rows = await self._rows(query, evidence_sha256)
        return EvidenceRecord(*rows[0]) if rows else None

    async def violations(
        self, worker_id: str | None, limit: int, before: str | None = None
    ) -> tuple[EvidenceRecord, ...]:
        older = "rowid < (SELECT rowid FROM evidence WHERE evidence_sha256 = ?)"
        where, values = _where(("worker_id = ?", worker_id), (older, before))
        query = f"SELECT {EVIDENCE_COLUMNS} FROM evidence {where} ORDER BY rowid DESC LIMIT ?"  # noqa: S608 (constants)
        return tuple(EvidenceRecord(*row) for row in await self._rows(query, *values, limit))

    async def strikes(self, worker_id: str, after_unix_ms: int) -> int:
        query = (
            "SELECT count(*) FROM evidence"
            " WHERE worker_id = ? AND outcome = 'struck' AND at_unix_ms > ?"
        )
        rows = await self._rows(query, worker_id, after_unix_ms)
        return int(rows[0][0])

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        await self._group.flush()
        return await self._database.events(after_seq, limit)

    async def recent_events(
        self, worker_id: str | None, limit: int, before_seq: int | None = None
    ) -> tuple[EventView, ...]:
        where, values = _where(("worker_id = ?", worker_id), ("seq < ?", before_seq))
        query = f"SELECT {EVENT_COLUMNS} FROM events {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 (constants)
        return tuple(event_of(row) for row in await self._rows(query, *values, limit))

    async def verify_events(self) -> int:
        await self._group.flush()
        return await self._database.verify_events()

    async def _rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        await self._group.flush()
        return await self._database.rows(query, *values)


def _where(*conditions: tuple[str, object | None]) -> tuple[str, list[object]]:
    """The clause of the conditions (constants) whose value is there, and the values."""
    there = [(text, value) for text, value in conditions if value is not None]
    clause = " AND ".join(text for text, _ in there)
    return (f"WHERE {clause}" if clause else ""), [value for _, value in there]


def _begin(connection: sqlite3.Connection, meta: Mapping[str, str], now_unix_ms: int) -> Snapshot:
    """The state at a start: the epoch grows."""
    epoch = int(meta["epoch"]) + 1
    high_water = max(int(meta["high_water_unix_ms"]), now_unix_ms)
    _check_fences(connection, meta)
    with transaction(connection):
        write_meta(connection, {"epoch": epoch, "high_water_unix_ms": high_water})
    return _load(connection, {**meta, "epoch": str(epoch), "high_water_unix_ms": str(high_water)})


def _check_fences(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    highest_fence = int(meta["highest_fence"])
    issued = connection.execute("SELECT coalesce(max(fence), 0) FROM leases").fetchone()[0]
    if issued > highest_fence:
        text = f"lease fences reach {issued}, beyond {highest_fence}; restore from a backup"
        raise StateUnusable(text)


def _load(connection: sqlite3.Connection, meta: Mapping[str, str]) -> Snapshot:
    high_water = int(meta["high_water_unix_ms"])
    mark = meta.get("clock_mark")
    return Snapshot(
        int(meta["epoch"]),
        int(meta["highest_fence"]),
        high_water,
        load_records(connection, high_water),
        None if mark is None else codec.read_mark(mark),
        int(meta["chain_seq"]),
    )
