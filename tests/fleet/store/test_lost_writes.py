"""What was acknowledged is there, or the start is refused: whatever happens to the files.

The children of `kill -9` leave a log of writes (-wal) behind. SQLite takes a damaged one for one
that ends earlier, and a missing one for an empty one: both would forget quarantines in silence.
"""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_fleet.ledger.decision import Decision, EventReason, LedgerEvent
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.store.protocol import ChainBroken, StateUnusable, StoreFailed
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.store.state_directory import FLEET_FILES
from tests.fakes.ledger_world import LedgerWorld, ulid

DATABASE, WAL = FLEET_FILES.database, FLEET_FILES.database + "-wal"
WORKERS = 12
ROUNDS = 40


async def _killed(state: Path, checkpointed: bool = False) -> Path:
    """The directory as `kill -9` leaves it, with its log of writes; or as an orderly end does."""
    store = SqliteFleetStore(state)
    await store.open(1_000)
    world = LedgerWorld()
    for number in range(WORKERS):
        await store.commit(world.register(ulid(number)))
        await store.commit(world.do(world.manager.quarantine(ulid(number), "alice", "why", 2_000)))
    copy = state.with_name("killed")
    shutil.copytree(state, copy, copy_function=shutil.copy2)
    await store.close()
    return state if checkpointed else copy


async def _whole_or_refused(state: Path) -> bool:
    """Open it: everybody is still held, or it is refused in words."""
    store = SqliteFleetStore(state)
    try:
        snapshot = await store.open(1_000)
        await store.verify_events()
    except (StateUnusable, StoreFailed, ChainBroken):
        return False
    finally:
        await store.close()
    held = [r for r in snapshot.records if isinstance(r, WorkerRecord) and r.confined]
    assert len(held) == WORKERS
    return True


async def test_what_kill_nine_leaves_is_whole(tmp_path: Path) -> None:
    copy = await _killed(tmp_path / "state")
    assert (copy / WAL).stat().st_size > 0
    assert await _whole_or_refused(copy)


async def test_a_log_of_writes_that_was_removed_is_told(tmp_path: Path) -> None:
    copy = await _killed(tmp_path / "state")
    for name in (WAL, DATABASE + "-shm"):
        (copy / name).unlink()
    with pytest.raises(StateUnusable):
        await SqliteFleetStore(copy).open(1_000)


async def test_an_older_copy_in_place_of_the_database_is_told(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for number in range(2):
        store = SqliteFleetStore(state)
        await store.open(1_000)
        event = LedgerEvent(EventReason.HEARTBEAT, "fleet", detail={"n": number})
        await store.commit(Decision(2_000, events=(event,)))
        await store.close()
        if number == 0:
            shutil.copy2(state / DATABASE, tmp_path / "older")
    shutil.copy2(tmp_path / "older", state / DATABASE)
    with pytest.raises(StateUnusable, match="ends at 1, but had come to 2"):
        await SqliteFleetStore(state).open(1_000)


async def test_another_log_of_the_same_length_is_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        store = SqliteFleetStore(tmp_path / name)
        await store.open(1_000)
        await store.commit(Decision(2_000, events=(LedgerEvent(EventReason.HEARTBEAT, name),)))
        await store.close()
    shutil.copy2(tmp_path / "one" / DATABASE, tmp_path / "two" / DATABASE)
    with pytest.raises(StateUnusable, match="had come to 1"):
        await SqliteFleetStore(tmp_path / "two").open(1_000)


@pytest.mark.parametrize("content", [b"x", b"palyra fleet state was created here\nx"])
async def test_a_damaged_marker_is_told(tmp_path: Path, content: bytes) -> None:
    copy = await _killed(tmp_path / "state")
    (copy / FLEET_FILES.marker).write_bytes(content)
    with pytest.raises(StateUnusable, match="damaged"):
        await SqliteFleetStore(copy).open(1_000)


@pytest.mark.parametrize("name", [DATABASE, WAL])
@pytest.mark.parametrize("damage", ["bytes", "cut", "zeros"])
async def test_damage_at_a_random_place_frees_nobody(
    tmp_path: Path, name: str, damage: str, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    places = random.Random(seed)
    copy = await _killed(tmp_path / "state", checkpointed=name == DATABASE)
    outcomes = [
        await _damaged(copy, tmp_path / "round", name, damage, places) for _ in range(ROUNDS)
    ]
    assert False in outcomes, "no round damaged anything that is looked at"


async def _damaged(copy: Path, place: Path, name: str, damage: str, places: random.Random) -> bool:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(copy, place, copy_function=shutil.copy2)
    file = place / name
    size = file.stat().st_size
    at = places.randrange(size)
    match damage:
        case "cut":
            os.truncate(file, at)
        case "zeros":
            with file.open("r+b") as opened:
                opened.seek(at // 512 * 512)
                opened.write(bytes(4_096))
        case _:
            content = bytearray(file.read_bytes())
            for _ in range(8):
                content[places.randrange(size)] ^= 1 << places.randrange(8)
            file.write_bytes(content)
    return await _whole_or_refused(place)


async def test_a_full_disk_refuses_and_works_again_when_there_is_room(tmp_path: Path) -> None:
    """SQLite's own limit stands in for the disk: the error is the same SQLITE_FULL."""
    store = SqliteFleetStore(tmp_path / "state")
    await store.open(1_000)
    connection = store._database._connection
    assert connection is not None
    run = store._database._run
    (pages,) = await run(lambda: connection.execute("PRAGMA page_count").fetchone())
    await run(lambda: connection.execute(f"PRAGMA max_page_count = {pages}"))
    events = tuple(
        LedgerEvent(EventReason.HEARTBEAT, "fleet", detail={"n": n, "pad": "x" * 200})
        for n in range(200)
    )
    with pytest.raises(StoreFailed, match="full") as caught:
        await store.commit(Decision(2_000, events=events))
    assert not caught.value.ambiguous
    await run(lambda: connection.execute("PRAGMA max_page_count = 1000000"))
    await store.commit(Decision(2_000, events=events))
    assert await store.verify_events() == 200
    await store.close()


async def test_a_directory_that_cannot_be_written_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteFleetStore(tmp_path / "state")
    await store.open(1_000)
    await store.close()
    real = os.open

    def read_only(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system", path)
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StateUnusable, match="Read-only file system"):
        await SqliteFleetStore(tmp_path / "state").open(1_000)


async def test_two_stores_at_once_do_not_share_a_state(tmp_path: Path) -> None:
    first, second = SqliteFleetStore(tmp_path / "state"), SqliteFleetStore(tmp_path / "state")
    await first.open(1_000)
    with pytest.raises(StateUnusable, match="another process"):
        await second.open(1_000)
    await first.close()
    await second.open(1_000)
    connection = sqlite3.connect(tmp_path / "state" / DATABASE)
    (epoch,) = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    connection.close()
    assert epoch == "2"
    await second.close()
