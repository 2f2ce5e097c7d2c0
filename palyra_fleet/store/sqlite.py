"""SqliteFleetStore: the embedded store. One file, one writer thread, one process.

Every call runs on one thread of its own, so the event loop never waits for a disk and no two
transactions meet. A decision, its events and the high-water marks are one `BEGIN IMMEDIATE`
transaction. After a COMMIT of unknown outcome the store refuses everything until it is opened
again, which reads what is really there.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import Decision, EvidenceRecord
from palyra_fleet.store import codec, state_directory
from palyra_fleet.store.event_chain import ChainHead, follow, link_all
from palyra_fleet.store.protocol import ChainBroken, Snapshot, StateUnusable, StoreFailed
from palyra_fleet.store.sqlite_connection import (
    open_database,
    read_meta,
    transaction,
    write_meta,
)
from palyra_fleet.store.sqlite_rows import (
    EVENT_COLUMNS,
    EVIDENCE_COLUMNS,
    event_of,
    load_records,
    write_event,
    write_records,
)
from palyra_fleet.wire.models import EventView

_WALK_ENTRIES = 5_000


class SqliteFleetStore:
    """FleetStore on SQLite. `open` before anything else."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._head = ChainHead()
        self._unknown = False

    async def open(self, now_unix_ms: int) -> Snapshot:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleet-store")
        try:
            return await self._run(lambda: self._open_or_refuse(now_unix_ms))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await asyncio.get_running_loop().run_in_executor(thread, self._close)
        thread.shutdown(wait=True)

    async def commit(self, decision: Decision) -> None:
        await self._run(lambda: self._commit(decision))

    async def lease(self, lease_id: str) -> WorkerLease | None:
        rows = await self._rows("SELECT body FROM leases WHERE lease_id = ?", lease_id)
        return codec.read_lease(str(rows[0][0])) if rows else None

    async def grant(self, grant_id: str) -> WorkerApprovalGrant | None:
        rows = await self._rows("SELECT body FROM grants WHERE grant_id = ?", grant_id)
        return codec.read_grant(str(rows[0][0])) if rows else None

    async def grants(self, limit: int) -> tuple[WorkerApprovalGrant, ...]:
        query = "SELECT body FROM grants ORDER BY grant_id DESC LIMIT ?"
        return tuple(codec.read_grant(str(body)) for (body,) in await self._rows(query, limit))

    async def evidence(self, evidence_sha256: str) -> EvidenceRecord | None:
        query = f"SELECT {EVIDENCE_COLUMNS} FROM evidence WHERE evidence_sha256 = ?"  # noqa: S608 (a constant)
        rows = await self._rows(query, evidence_sha256)
        return EvidenceRecord(*rows[0]) if rows else None

    async def violations(self, worker_id: str | None, limit: int) -> tuple[EvidenceRecord, ...]:
        where = "" if worker_id is None else "WHERE worker_id = ?"
        query = f"SELECT {EVIDENCE_COLUMNS} FROM evidence {where} ORDER BY rowid DESC LIMIT ?"  # noqa: S608 (constants)
        values = (limit,) if worker_id is None else (worker_id, limit)
        return tuple(EvidenceRecord(*row) for row in await self._rows(query, *values))

    async def strikes(self, worker_id: str, after_unix_ms: int) -> int:
        query = (
            "SELECT count(*) FROM evidence"
            " WHERE worker_id = ? AND outcome = 'struck' AND at_unix_ms > ?"
        )
        rows = await self._rows(query, worker_id, after_unix_ms)
        return int(rows[0][0])

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        query = f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 (a constant)
        return tuple(event_of(row) for row in await self._rows(query, after_seq, limit))

    async def verify_events(self) -> int:
        head = ChainHead()
        expected = await self._run(lambda: self._head)
        while head.seq < expected.seq:
            entries = await self.events(head.seq, min(_WALK_ENTRIES, expected.seq - head.seq))
            if not entries:
                raise ChainBroken(f"events after {head.seq} are missing")
            head = follow(head, entries)
        if head != expected:
            raise ChainBroken(f"event {head.seq} is not the entry this process wrote")
        return head.seq

    async def _run[T](self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise StoreFailed("the store is closed", ambiguous=False)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        def read() -> list[tuple]:  # type: ignore[type-arg]
            try:
                return self._ready().execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreFailed(f"cannot read: {error}", ambiguous=False) from error

        return await self._run(read)

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreFailed("the store is closed", ambiguous=False)
        if self._unknown:
            text = "the outcome of an earlier commit is unknown; start the fleet again"
            raise StoreFailed(text, ambiguous=False)
        return self._connection

    def _open_or_refuse(self, now_unix_ms: int) -> Snapshot:
        try:
            return self._open(now_unix_ms)
        except (KeyError, ValueError, OverflowError, sqlite3.Error) as error:
            text = f"{self._state_dir}: damaged ({type(error).__name__}); restore it from a backup"
            raise StateUnusable(text) from error

    def _open(self, now_unix_ms: int) -> Snapshot:
        state_directory.prepare(self._state_dir)
        self._lock = state_directory.lock(self._state_dir)
        connection = open_database(self._state_dir)
        self._connection = connection
        meta = read_meta(connection)
        epoch = int(meta["epoch"]) + 1
        highest_fence = int(meta["highest_fence"])
        high_water = max(int(meta["high_water_unix_ms"]), now_unix_ms)
        issued = connection.execute("SELECT coalesce(max(fence), 0) FROM leases").fetchone()[0]
        if issued > highest_fence:
            text = f"lease fences reach {issued}, beyond {highest_fence}; restore from a backup"
            raise StateUnusable(text)
        with transaction(connection):
            write_meta(connection, {"epoch": epoch, "high_water_unix_ms": high_water})
        self._head = ChainHead(int(meta["chain_seq"]), meta["chain_sha256"])
        return Snapshot(epoch, highest_fence, high_water, load_records(connection, high_water))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _commit(self, decision: Decision) -> None:
        connection = self._ready()
        entries, head = link_all(self._head, decision.events, decision.at_unix_ms)
        try:
            with transaction(connection):
                write_records(connection, decision.records)
                for entry in entries:
                    write_event(connection, entry)
                self._write_marks(connection, decision, head)
        except StoreFailed as failure:
            self._unknown = failure.ambiguous
            raise
        self._head = head

    @staticmethod
    def _write_marks(connection: sqlite3.Connection, decision: Decision, head: ChainHead) -> None:
        meta = read_meta(connection)
        write_meta(
            connection,
            {
                "chain_seq": head.seq,
                "chain_sha256": head.sha256,
                "highest_fence": max(int(meta["highest_fence"]), decision.highest_fence),
                "high_water_unix_ms": max(int(meta["high_water_unix_ms"]), decision.at_unix_ms),
            },
        )
