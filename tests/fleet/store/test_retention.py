"""What finished long ago is forgotten; the chain, evidence and every live thing stay."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.leases.records import LeaseStatus
from palyra_fleet.ledger.decision import Decision, EventReason, LedgerEvent
from palyra_fleet.store.protocol import ChainBroken, Retention, StoreConflict
from palyra_fleet.store.retention import ARCHIVE, verify_archive
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.store.state_directory import FLEET_FILES
from tests.fakes.ledger_world import LedgerWorld, ulid

DAY = 24 * 3_600_000
KEEP = Retention(ended_ms=DAY, events=1_000, step=600)


async def _with_events(state: Path, events: int) -> SqliteFleetStore:
    store = SqliteFleetStore(state)
    await store.open(1_000)
    for first in range(0, events, 500):
        many = tuple(
            LedgerEvent(EventReason.HEARTBEAT, "fleet", detail={"n": n})
            for n in range(first, min(first + 500, events))
        )
        await store.commit(Decision(2_000, events=many))
    return store


async def test_old_events_go_to_files_and_both_halves_are_one_chain(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = await _with_events(state, 2_500)
    whole = await store.events(0, 3_000)
    steps = []
    while True:
        step = await store.prune(KEEP, 2_000)
        steps.append(step.events)
        if not step.more:
            break
    assert steps == [600, 600, 300]
    assert (await store.events(0, 3_000)) == whole[1_500:]
    assert await store.verify_events() == 2_500
    head = verify_archive(state / ARCHIVE)
    assert (head.seq, head.sha256) == (1_500, whole[1_500].previous_sha256)
    await store.close()
    again = SqliteFleetStore(state)
    await again.open(3_000)
    assert await again.verify_events() == 2_500
    await again.close()


async def test_a_changed_archive_is_told(tmp_path: Path) -> None:
    store = await _with_events(tmp_path / "state", 1_500)
    await store.prune(KEEP, 2_000)
    await store.close()
    (file,) = (tmp_path / "state" / ARCHIVE).iterdir()
    file.write_text(file.read_text().replace('"n":7}', '"n":8}'))
    with pytest.raises(ChainBroken, match="event 8"):
        verify_archive(tmp_path / "state" / ARCHIVE)


async def test_a_step_that_broke_off_after_its_file_is_taken_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    store = await _with_events(state, 1_500)
    (state / ARCHIVE).mkdir(mode=0o700)
    (state / ARCHIVE / "events-000000000001-000000000500.jsonl").write_text("half a line")
    assert (await store.prune(KEEP, 2_000)).events == 500
    assert verify_archive(state / ARCHIVE).seq == 500
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events WHERE seq = 1400",
        "UPDATE meta SET value = '3' WHERE key = 'chain_base_seq'",
        "DELETE FROM leases WHERE live = 1",
        "DELETE FROM grants WHERE uses = 0",
    ],
)
async def test_nothing_else_is_deleted(tmp_path: Path, statement: str) -> None:
    state = tmp_path / "state"
    store = await _with_events(state, 1_500)
    world = LedgerWorld()
    world.register(ulid(1))
    world.lease(ulid(1), "run-1", 2_000)
    world.grant("run-2", 2_000)
    for decision in world.decisions:
        await store.commit(decision)
    await store.prune(KEEP, 2_000)
    await store.close()
    connection = sqlite3.connect(state / FLEET_FILES.database)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()


async def test_leases_and_grants_are_forgotten_a_while_after_their_end_only(
    tmp_path: Path,
) -> None:
    store = SqliteFleetStore(tmp_path / "state")
    await store.open(1_000)
    world = LedgerWorld()
    world.register(ulid(1))
    world.register(ulid(2))
    ended = world.lease(ulid(1), "run-1", 2_000)
    world.do(world.complete(ended, 3_000))
    live = world.lease(ulid(2), "run-2", 2_000)
    short = world.grant("run-3", 3_000, 3_500)
    for decision in world.decisions:
        await store.commit(decision)
    kept = await store.prune(KEEP, 3_000 + DAY)
    assert (kept.leases, kept.grants) == (0, 0)
    later = await store.prune(KEEP, 3_500 + DAY)
    assert (later.leases, later.grants) == (1, 0)
    done = await store.prune(KEEP, 3_501 + DAY)
    assert (done.leases, done.grants, done.more) == (0, 1, False)
    assert await store.grant(short) is None
    assert await store.lease(ended.lease_id) is None  # forgotten at 3 001 + a day already
    assert await store.lease(live.lease_id) == live
    reused = replace(live, lease_id=ulid(900), run_id="run-9", fence=ended.fence)
    with pytest.raises(StoreConflict):  # its fence is not given again
        await store.commit(
            Decision(
                4_000,
                records=(replace(live, status=LeaseStatus.REVOKED), reused),
            )
        )
    await store.close()


def test_a_retention_that_forgets_too_soon_is_refused() -> None:
    for wrong in ({"ended_ms": DAY - 1}, {"events": 999}, {"step": 0}):
        with pytest.raises(ValueError, match="keep what has ended"):
            Retention(**wrong)
