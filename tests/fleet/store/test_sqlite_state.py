"""State that must not be used: lost, damaged, too open, in use, of another release, edited."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.ledger.decision import Decision, EventReason, LedgerEvent
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.store.protocol import ChainBroken, StateUnusable
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.store.state_directory import AUTHORITY, FLEET_FILES
from tests.fakes.ledger_world import LedgerWorld, ulid

DATABASE, MARKER = FLEET_FILES.database, FLEET_FILES.marker


async def _written(state_dir: Path, events: int = 5) -> None:
    store = SqliteFleetStore(state_dir)
    await store.open(1_000)
    world = LedgerWorld()
    await store.commit(world.register(ulid(1)))
    for number in range(events):
        event = LedgerEvent(EventReason.HEARTBEAT, "fleet", detail={"n": number})
        await store.commit(Decision(2_000, events=(event,)))
    await store.close()


async def _refusal(state_dir: Path) -> str:
    store = SqliteFleetStore(state_dir)
    with pytest.raises(StateUnusable) as caught:
        await store.open(1_000)
    return str(caught.value)


def _edit(state_dir: Path, *statements: str) -> None:
    connection = sqlite3.connect(state_dir / DATABASE)
    for name in ("events_are_kept", "events_are_final"):
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = SqliteFleetStore(state)
    await store.open(1_000)
    await store.commit(Decision(2_000, events=(LedgerEvent(EventReason.HEARTBEAT, "fleet"),)))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert set(modes.values()) == {0o600}
    assert f"{DATABASE}-wal" in modes
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    await store.close()


async def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    store = SqliteFleetStore(tmp_path / "state")
    await store.open(1_000)
    assert "another process" in await _refusal(tmp_path / "state")
    await store.close()


async def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    assert "chmod 700" in await _refusal(state)


async def test_a_database_open_to_others_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state)
    (state / DATABASE).chmod(0o644)
    assert "chmod 600" in await _refusal(state)


@pytest.mark.parametrize("left", [MARKER, AUTHORITY])
async def test_lost_state_is_not_begun_anew(tmp_path: Path, left: str) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / left).touch()
    text = await _refusal(state)
    assert "restore" in text
    assert not (state / DATABASE).exists()


async def test_an_emptied_database_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state)
    os.truncate(state / DATABASE, 0)
    assert "restore" in await _refusal(state)


async def test_a_start_that_broke_off_before_the_schema_can_be_repeated(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.close(os.open(state / DATABASE, os.O_CREAT | os.O_WRONLY, 0o600))
    await _written(state)


async def test_damaged_pages_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state, events=200)
    path = state / DATABASE
    content = bytearray(path.read_bytes())
    for offset in range(8_192, len(content), 4_096):
        content[offset : offset + 200] = b"\xa5" * 200
    path.write_bytes(content)
    assert "restore" in await _refusal(state)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state)
    (state / DATABASE).write_bytes(b"not a database" * 1_000)
    assert "restore" in await _refusal(state)


async def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state)
    _edit(state, "UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    assert "schema version 99" in await _refusal(state)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor = 'mallory' WHERE seq = 3",
        "UPDATE events SET detail = '{}' WHERE seq = 4",
        "DELETE FROM events WHERE seq = 6",  # the last one
        "DELETE FROM events WHERE seq = 3",
        "DELETE FROM events",
    ],
)
async def test_an_edited_event_log_is_refused_at_start(tmp_path: Path, statement: str) -> None:
    state = tmp_path / "state"
    await _written(state)
    _edit(state, statement)
    assert "event log" in await _refusal(state)


async def test_an_edit_before_the_tail_is_found_by_the_full_walk(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state, events=1_010)
    _edit(state, "UPDATE events SET actor = 'mallory' WHERE seq = 2")
    store = SqliteFleetStore(state)
    await store.open(1_000)
    with pytest.raises(ChainBroken, match="event 2"):
        await store.verify_events()
    await store.close()


async def test_a_damaged_record_is_refused_without_showing_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state)
    _edit(state, """UPDATE workers SET body = '[{"worker_id": 7, "admission": "free"}]'""")
    text = await _refusal(state)
    assert "damaged" in text
    assert "free" not in text


async def test_a_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _written(tmp_path / "state")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "another user" in await _refusal(tmp_path / "state")


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE events SET detail = '{' WHERE seq = 3",
        "UPDATE events SET detail = '[]' WHERE seq = 3",
        f"UPDATE events SET detail = '{'[' * 100_000}' WHERE seq = 3",
        "UPDATE meta SET value = 'x' WHERE key = 'epoch'",
        "UPDATE meta SET value = '99999999999999999999' WHERE key = 'high_water_unix_ms'",
        "DELETE FROM meta WHERE key = 'highest_fence'",
        "DELETE FROM meta WHERE key = 'chain_seq'",
        "DROP TABLE tombstones",
        "UPDATE workers SET admission = 'quarantined'",
        "UPDATE workers SET body = replace(body, 'active', 'banned')",
    ],
)
async def test_what_was_edited_by_hand_is_refused_in_words(tmp_path: Path, edit: str) -> None:
    await _written(tmp_path / "state")
    _edit(tmp_path / "state", edit)
    assert "backup" in await _refusal(tmp_path / "state")


async def test_an_event_edited_while_the_fleet_runs_breaks_the_chain(tmp_path: Path) -> None:
    await _written(tmp_path / "state")
    store = SqliteFleetStore(tmp_path / "state")
    await store.open(1_000)
    _edit(tmp_path / "state", "UPDATE events SET detail = '{' WHERE seq = 3")
    with pytest.raises(ChainBroken):
        await store.verify_events()
    await store.close()


async def test_a_worker_written_before_facts_were_kept_is_known_for_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    await _written(state)
    new = ("image_digest_sha256", "build_digest_sha256", "binding_level")
    paths = ", ".join(f"'$[0].proof.{name}'" for name in new)
    _edit(state, f"UPDATE workers SET body = json_remove(body, {paths})")
    store = SqliteFleetStore(state)
    snapshot = await store.open(3_000)
    await store.close()
    (worker,) = (record for record in snapshot.records if isinstance(record, WorkerRecord))
    assert worker.proof.image_digest_sha256 is None and worker.proof.build_digest_sha256 is None
    assert worker.proof.binding_level is BindingLevel.NONE


async def test_what_a_worker_proved_is_kept_across_a_restart(tmp_path: Path) -> None:
    await _written(tmp_path / "state")
    store = SqliteFleetStore(tmp_path / "state")
    snapshot = await store.open(3_000)
    await store.close()
    (worker,) = (record for record in snapshot.records if isinstance(record, WorkerRecord))
    assert worker.proof == LedgerWorld().register(ulid(1)).records[0].proof  # type: ignore[union-attr]
    assert worker.proof.binding_level is BindingLevel.OBSERVED
