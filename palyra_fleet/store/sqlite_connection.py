"""Opens a SQLite database of the fleet and decides whether its state may be used.

WAL with `synchronous=FULL`, so what was committed survives power loss; explicit transactions only.
Refuses (StateUnusable) a database that fails `quick_check`, has a newer schema, or whose event
log's tail does not verify or does not end where `meta` says. One of an older release is brought
forward first, by `migrations`. All of it runs on the store's one thread. Source: SQLite
documentation, "Write-Ahead Logging", "PRAGMA Statements".
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from palyra_fleet.store import migrations, state_directory
from palyra_fleet.store.event_chain import GENESIS, ChainHead, follow
from palyra_fleet.store.failpoints import reached
from palyra_fleet.store.protocol import ChainBroken, StateUnusable, StoreConflict, StoreFailed
from palyra_fleet.store.sqlite_rows import event_of
from palyra_fleet.store.sqlite_schema import FLEET_MIGRATIONS, SCHEMA, SCHEMA_VERSION

TAIL_ENTRIES = 1_000
"""How much of the event log is verified at every start; `verify_events` walks all of it."""

_RESTORE = "restore it from a backup; do not edit it by hand"


@dataclass(frozen=True, slots=True)
class DatabaseDesign:
    """One kind of database: its files, its schema, and what `meta` holds at first.

    `schema` is that of `schema_version`; each of `migrations` brings it one version further. A new
    database is made the same way, so there is one way to the current schema. Every design has the
    tables `meta` and `events`; both are checked at every start.
    """

    files: state_directory.StateFiles
    schema: str
    schema_version: int
    first_meta: dict[str, int | str] = field(default_factory=dict)
    migrations: tuple[str, ...] = ()

    @property
    def current_version(self) -> int:
        return self.schema_version + len(self.migrations)


FLEET_DATABASE = DatabaseDesign(
    state_directory.FLEET_FILES,
    SCHEMA,
    SCHEMA_VERSION,
    {"epoch": 0, "highest_fence": 0},
    FLEET_MIGRATIONS,
)


def connect(path: Path) -> sqlite3.Connection:
    """Open and configure; creates no schema."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except (sqlite3.Error, UnicodeDecodeError) as error:  # damage may be in the error's own text
        connection.close()
        text = f"{path}: cannot be opened ({type(error).__name__}); {_RESTORE}"
        raise StateUnusable(text) from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. A failure before COMMIT rolls back; a failure of COMMIT is ambiguous."""
    reached("store.before_begin")
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise StoreFailed(f"cannot begin: {error}", ambiguous=False) from error
    try:
        yield
    except sqlite3.IntegrityError as error:
        connection.execute("ROLLBACK")
        raise StoreConflict(str(error)) from error
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise StoreFailed(f"cannot write: {error}", ambiguous=False) from error
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    reached("store.before_commit")
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreFailed(f"cannot commit: {error}", ambiguous=True) from error
    reached("store.after_commit")


def open_database(state_dir: Path, design: DatabaseDesign = FLEET_DATABASE) -> sqlite3.Connection:
    """The checked database of a locked state directory; made new only where none ever was."""
    path, was_here = state_directory.database_file(state_dir, design.files)
    connection = connect(path)
    try:
        _check_pages(connection, path)
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables == 0:
            if was_here:
                raise StateUnusable(f"{path}: holds no fleet state; {_RESTORE}")
            _create(connection, design)
        bring_forward(connection, path, design)
        head = _check_chain_tail(connection, path)
        state_directory.check_head(state_dir, design.files, head)
    except sqlite3.Error as error:
        connection.close()
        raise StateUnusable(f"{path}: damaged ({error}); {_RESTORE}") from error
    except BaseException:
        connection.close()
        raise
    reached("store.before_marker")
    state_directory.write_marker(state_dir, design.files)
    return connection


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, value FROM meta"))


def chain_base(meta: Mapping[str, str]) -> ChainHead:
    """Where the event log begins: after the entries that were archived."""
    return ChainHead(int(meta.get("chain_base_seq", 0)), meta.get("chain_base_sha256", GENESIS))


def write_meta(connection: sqlite3.Connection, values: dict[str, int | str]) -> None:
    connection.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, str(value)) for key, value in values.items()],
    )


def raise_mark(connection: sqlite3.Connection, name: str, value: int) -> None:
    """A number in `meta` that only grows."""
    connection.execute(
        "UPDATE meta SET value = CAST(max(CAST(value AS INTEGER), ?) AS TEXT) WHERE key = ?",
        (value, name),
    )


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA quick_check").fetchone()[0]
    if found != "ok":
        raise StateUnusable(f"{path}: damaged ({found}); {_RESTORE}")


def _create(connection: sqlite3.Connection, design: DatabaseDesign) -> None:
    with transaction(connection):
        for statement in migrations.statements(design.schema):
            connection.execute(statement)
        first: dict[str, int | str] = {
            "schema_version": design.schema_version,
            "high_water_unix_ms": 0,
            "chain_seq": 0,
            "chain_sha256": GENESIS,
        }
        write_meta(connection, first | design.first_meta)


def bring_forward(connection: sqlite3.Connection, path: Path, design: DatabaseDesign) -> None:
    """Every missing migration, each in a transaction of its own. Refuses what is newer."""
    found = read_meta(connection).get("schema_version", "")
    version = int(found) if found.isdecimal() else -1
    if not design.schema_version <= version <= design.current_version:
        raise StateUnusable(
            f"{path}: schema version {found}, expected {design.current_version};"
            " start the release that wrote it, or restore a backup of this one"
        )
    missing = design.migrations[version - design.schema_version :]
    if missing and connection.execute("SELECT count(*) FROM events").fetchone()[0]:
        migrations.keep_copy(connection, path, version)
    for number, script in enumerate(missing, start=version + 1):
        reached("store.before_migration")
        with transaction(connection):
            for statement in migrations.statements(script):
                connection.execute(statement)
            write_meta(connection, {"schema_version": number})
        reached("store.after_migration")


def _check_chain_tail(connection: sqlite3.Connection, path: Path) -> ChainHead:
    meta = read_meta(connection)
    head = ChainHead(int(meta["chain_seq"]), meta["chain_sha256"])
    base = chain_base(meta)
    rows = connection.execute(
        "SELECT seq, at_unix_ms, reason, actor, worker_id, lease_id, detail, previous_sha256,"
        " sha256 FROM events ORDER BY seq DESC LIMIT ?",
        (TAIL_ENTRIES,),
    ).fetchall()
    try:
        tail = [event_of(row) for row in reversed(rows)]
        within = bool(tail) and tail[0].seq > base.seq + 1  # the log begins before this tail
        start = ChainHead(tail[0].seq - 1, tail[0].previous_sha256) if within else base
        end = follow(start, tail)
    except ChainBroken as error:
        raise StateUnusable(f"{path}: the event log is broken ({error}); {_RESTORE}") from error
    if end != head:
        raise StateUnusable(
            f"{path}: the event log ends at {end.seq}, expected {head.seq}; {_RESTORE}"
        )
    return head
