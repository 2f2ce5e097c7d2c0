"""A database that an earlier release wrote is brought forward, whole, and kept beside."""

import sqlite3
import stat
from pathlib import Path

import pytest

from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.facts import Admission, WorkerRecord
from palyra_fleet.store.protocol import StateUnusable
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.store.sqlite_connection import FLEET_DATABASE
from palyra_fleet.store.state_directory import FLEET_FILES
from tests.fakes.ledger_world import ulid

CURRENT = FLEET_DATABASE.current_version
DUMP = Path(__file__).parent / "data" / "fleet-schema-1.sql"
"""What the first release really wrote: live, ended and open work, a quarantine, a ban."""


def old_state(state: Path) -> Path:
    state.mkdir(mode=0o700)
    path = state / FLEET_FILES.database
    path.touch(mode=0o600)
    (state / FLEET_FILES.marker).touch(mode=0o600)
    connection = sqlite3.connect(path)
    connection.executescript(DUMP.read_text())
    connection.close()
    return path


def _schema(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    connection.close()
    return found


async def test_an_older_database_keeps_everything_and_gets_the_current_schema(
    tmp_path: Path,
) -> None:
    path = old_state(tmp_path / "old")
    store = SqliteFleetStore(tmp_path / "old")
    snapshot = await store.open(0)
    workers = {r.worker_id: r for r in snapshot.records if isinstance(r, WorkerRecord)}
    admissions = {worker_id: worker.admission for worker_id, worker in workers.items()}
    assert admissions == {
        ulid(1): Admission.ACTIVE,
        ulid(2): Admission.QUARANTINED,
        ulid(3): Admission.QUARANTINED,
        ulid(4): Admission.BANNED,
        ulid(5): Admission.ACTIVE,
    }
    live = [r for r in snapshot.records if isinstance(r, WorkerLease)]
    assert [lease.run_id for lease in live] == ["run-live"]
    assert (snapshot.epoch, snapshot.highest_fence, snapshot.clock_mark) == (2, 4, None)
    assert await store.verify_events() > 10
    await store.close()
    fresh = SqliteFleetStore(tmp_path / "new")
    await fresh.open(0)
    await fresh.close()
    assert _schema(path) == _schema(tmp_path / "new" / FLEET_FILES.database)


async def test_the_older_database_is_kept_beside_and_never_overwritten(tmp_path: Path) -> None:
    path = old_state(tmp_path / "old")
    store = SqliteFleetStore(tmp_path / "old")
    await store.open(0)
    await store.close()
    kept = path.with_name(f"{path.name}.version-1")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    connection = sqlite3.connect(kept)
    version = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    connection.close()
    assert version == ("1",)
    before = kept.read_bytes()
    await (store := SqliteFleetStore(tmp_path / "old")).open(0)
    await store.close()
    assert kept.read_bytes() == before


@pytest.mark.parametrize("version", [str(CURRENT + 1), "99", "0", "-1", "two", ""])
async def test_a_version_that_is_not_known_here_is_refused(tmp_path: Path, version: str) -> None:
    path = old_state(tmp_path / "old")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (version,))
    connection.commit()
    connection.close()
    before = _schema(path)
    with pytest.raises(StateUnusable, match=f"schema version {version}, expected {CURRENT}"):
        await SqliteFleetStore(tmp_path / "old").open(0)
    assert _schema(path) == before
