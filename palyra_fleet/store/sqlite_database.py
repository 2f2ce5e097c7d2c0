"""SqliteDatabase: one database of the fleet, on one thread of its own, with its event chain.

The event loop never waits for a disk and no two transactions meet. What is written, its events and
the marks in `meta` are one `BEGIN IMMEDIATE` transaction. After a COMMIT of unknown outcome the
database refuses everything until it is opened again, which reads what is really there.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from palyra_fleet.store import state_directory
from palyra_fleet.store.event_chain import ChainedEvent, ChainHead, follow, link_all
from palyra_fleet.store.failpoints import reached
from palyra_fleet.store.protocol import ChainBroken, StateUnusable, StoreFailed
from palyra_fleet.store.sqlite_connection import (
    DatabaseDesign,
    chain_base,
    open_database,
    raise_mark,
    read_meta,
    transaction,
    write_meta,
)
from palyra_fleet.store.sqlite_rows import EVENT_COLUMNS, event_of, write_event
from palyra_fleet.wire.models import EventView

_WALK_ENTRIES = 5_000


class SqliteDatabase:
    """`open` before anything else."""

    def __init__(self, state_dir: Path, design: DatabaseDesign) -> None:
        self._state_dir = state_dir
        self._design = design
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._head = ChainHead()
        self._head_keeper: state_directory.HeadKeeper | None = None
        self._unknown = False

    async def open[T](self, load: Callable[[sqlite3.Connection, Mapping[str, str]], T]) -> T:
        """Check the state and answer what `load` makes of it. Raises StateUnusable."""
        name = self._design.files.database.partition(".")[0]
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{name}-store")
        try:
            return await self._run(lambda: self._open_or_refuse(load))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is being written and let go of the state. Safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await asyncio.get_running_loop().run_in_executor(thread, self._close)
        thread.shutdown(wait=True)

    async def write(
        self,
        at_unix_ms: int,
        events: Iterable[ChainedEvent],
        work: Callable[[sqlite3.Connection], None],
        marks: Mapping[str, int] | None = None,
    ) -> None:
        """Do `work`, chain the events and raise the marks, all or nothing."""
        await self.write_group([Write(at_unix_ms, tuple(events), work, marks or {})])

    async def write_group(self, writes: Sequence["Write"]) -> None:
        """Several in this order, in one transaction: all or nothing."""
        await self._run(lambda: self._write(writes))

    async def read[T](self, load: Callable[[sqlite3.Connection, Mapping[str, str]], T]) -> T:
        """What `load` makes of what is durable now. Raises StateUnusable or StoreFailed."""
        return await self._run(lambda: self._loaded(self._ready(), load))

    async def rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        def read() -> list[tuple]:  # type: ignore[type-arg]
            try:
                return self._ready().execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreFailed(f"cannot read: {error}", ambiguous=False) from error

        return await self._run(read)

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        """Entries after `after_seq`, oldest first."""
        query = f"SELECT {EVENT_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 (a constant)
        return tuple(event_of(row) for row in await self.rows(query, after_seq, limit))

    async def verify_events(self) -> int:
        """Walk the whole chain; the number of entries. Raises ChainBroken."""
        expected = await self._run(lambda: self._head)
        head = await self.read(lambda _, meta: chain_base(meta))
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

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreFailed("the store is closed", ambiguous=False)
        if self._unknown:
            text = "the outcome of an earlier commit is unknown; start the fleet again"
            raise StoreFailed(text, ambiguous=False)
        return self._connection

    def _open_or_refuse[T](self, load: Callable[[sqlite3.Connection, Mapping[str, str]], T]) -> T:
        try:
            state_directory.prepare(self._state_dir)
            self._lock = state_directory.lock(self._state_dir, self._design.files.lock)
            self._connection = connection = open_database(self._state_dir, self._design)
            if self._design.files.keeps_head:
                self._head_keeper = state_directory.HeadKeeper(self._state_dir, self._design.files)
        except OSError as error:
            text = f"{self._state_dir}: cannot be used ({error.strerror})"
            raise StateUnusable(text) from error
        except (KeyError, ValueError, TypeError, OverflowError, sqlite3.Error) as error:
            raise self._damaged(error) from error
        return self._loaded(connection, load)

    def _loaded[T](
        self,
        connection: sqlite3.Connection,
        load: Callable[[sqlite3.Connection, Mapping[str, str]], T],
    ) -> T:
        try:
            meta = read_meta(connection)
            self._head = ChainHead(int(meta["chain_seq"]), meta["chain_sha256"])
            return load(connection, meta)
        except (KeyError, ValueError, TypeError, OverflowError, sqlite3.Error) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> StateUnusable:
        place = self._state_dir / self._design.files.database
        text = f"{place}: damaged ({type(error).__name__}); restore it from a backup"
        return StateUnusable(text)

    def _close(self) -> None:
        if self._head_keeper is not None:
            self._head_keeper.close()
            self._head_keeper = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self, writes: Sequence["Write"]) -> None:
        connection = self._ready()
        head = self._head
        try:
            with transaction(connection):
                for write in writes:
                    head = self._write_one(connection, write, head)
                texts = {name: text for write in writes for name, text in write.texts.items()}
                write_meta(
                    connection, {"chain_seq": head.seq, "chain_sha256": head.sha256, **texts}
                )
        except StoreFailed as failure:
            self._unknown = failure.ambiguous
            raise
        self._head = head
        if self._head_keeper is not None and any(write.events for write in writes):
            self._head_keeper.write(head)

    @staticmethod
    def _write_one(connection: sqlite3.Connection, write: "Write", head: ChainHead) -> ChainHead:
        write.work(connection)
        reached("store.after_records")
        entries, head = link_all(head, write.events, write.at_unix_ms)
        for entry in entries:
            write_event(connection, entry)
        for name, value in ({"high_water_unix_ms": write.at_unix_ms} | dict(write.marks)).items():
            raise_mark(connection, name, value)
        return head


@dataclass(frozen=True, slots=True)
class Write:
    """One decision's part of a transaction. `marks` in `meta` only grow; `texts` are replaced."""

    at_unix_ms: int
    events: tuple[ChainedEvent, ...]
    work: Callable[[sqlite3.Connection], None]
    marks: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
