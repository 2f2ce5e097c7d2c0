"""Snapshots: whole, checked, never overwriting; and put back without setting anybody free."""

import os
import sqlite3
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from palyra_fleet.leases.records import LeaseStatus, WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import (
    Decision,
    EnrolledKey,
    EventReason,
    FleetFreeze,
    LedgerEvent,
    ReferenceValue,
    Tombstone,
    TombstoneKind,
    WithdrawnReference,
)
from palyra_fleet.ledger.facts import Admission, Work, WorkerRecord
from palyra_fleet.ledger.restoring import HELD, UNKNOWN
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.store.event_chain import ChainHead
from palyra_fleet.store.protocol import Snapshot, StateUnusable
from palyra_fleet.store.restore import FENCES_PER_MS, restore
from palyra_fleet.store.snapshot import inspect, save
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.store.sqlite_connection import FLEET_DATABASE
from palyra_fleet.store.state_directory import FLEET_FILES, RESTORING, HeadKeeper
from tests.fakes.ledger_world import LedgerWorld, attested, key_of, ulid

W1, W2, W3, W4 = (ulid(n) for n in range(1, 5))
NOW = 10_000


class Fleet:
    """A ledger whose decisions go to a real store."""

    def __init__(self, state: Path) -> None:
        self.state, self.world, self.written = state, LedgerWorld(), 0
        self.store = SqliteFleetStore(state)

    async def __aenter__(self) -> "Fleet":
        await self.store.open(1_000)
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self.write()
        await self.store.close()

    async def write(self) -> None:
        for decision in self.world.decisions[self.written :]:
            await self.store.commit(decision)
        self.written = len(self.world.decisions)


async def _saved(state: Path, file: Path) -> LedgerWorld:
    """Three workers, one leased, one quarantined; then more happens that the snapshot misses."""
    async with Fleet(state) as fleet:
        world = fleet.world
        for worker_id in (W1, W2, W3):
            world.register(worker_id)
        world.lease(W1, "run-1", 2_000)
        world.grant("run-2", 2_000)
        world.do(world.manager.quarantine(W3, "alice", "early", 2_500))
        await fleet.write()
        save(state, file)
        world.do(world.manager.quarantine(W2, "alice", "late", 3_000, evidence_sha256="d" * 64))
        world.register(W4, 3_000)
        world.do(world.manager.ban(W4, "alice", "late", 3_100))
        world.lease(ulid(9), "run-9", 3_200) if world.register(ulid(9), 3_200) else None
    return world


async def _opened(state: Path) -> tuple[Snapshot, dict[str, WorkerRecord]]:
    store = SqliteFleetStore(state)
    snapshot = await store.open(0)
    assert await store.verify_events() > 0
    await store.close()
    return snapshot, {r.worker_id: r for r in snapshot.records if isinstance(r, WorkerRecord)}


async def test_a_snapshot_of_a_running_fleet_is_whole_private_and_says_what_it_holds(
    tmp_path: Path,
) -> None:
    file = tmp_path / "snapshot"
    await _saved(tmp_path / "state", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    found = inspect(file)
    assert (found.workers, found.quarantined, found.banned) == (3, 1, 0)
    assert (found.live_leases, found.open_grants, found.highest_fence) == (1, 1, 1)
    assert (found.epoch, found.high_water_unix_ms) == (1, 2_500)
    assert found.schema_version == FLEET_DATABASE.current_version
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"snapshot", "state"}  # noqa: ASYNC240 (a test)


async def test_a_snapshot_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    file.write_text("mine")
    async with Fleet(tmp_path / "state") as fleet:
        fleet.world.register(W1)
    with pytest.raises(StateUnusable, match="overwrites nothing"):
        save(tmp_path / "state", file)
    assert file.read_text() == "mine"
    with pytest.raises(StateUnusable, match="no fleet state"):
        save(tmp_path / "elsewhere", tmp_path / "other")


async def test_whoever_is_held_when_a_snapshot_is_put_back_stays_held(tmp_path: Path) -> None:
    """Invariant 4 over a restore: quarantines and bans since the snapshot are not forgotten."""
    state, file = tmp_path / "state", tmp_path / "snapshot"
    world = await _saved(state, file)
    done = restore(state, file, NOW, replace=True)
    snapshot, workers = await _opened(state)
    assert {i: w.admission for i, w in workers.items()} == {
        W1: Admission.ACTIVE,
        W2: Admission.QUARANTINED,
        W3: Admission.QUARANTINED,
        W4: Admission.BANNED,
    }
    assert workers[W2].quarantine == world.worker(W2).quarantine
    assert workers[W3].quarantine == world.worker(W3).quarantine
    assert Tombstone(TombstoneKind.WORKER, W4) in snapshot.records
    assert (done.before, done.kept_confined) == ("read", 3)
    assert snapshot.epoch > 1 + 1
    assert snapshot.highest_fence > world.manager.state.highest_fence


async def test_leases_approvals_and_evidence_of_a_snapshot_are_void(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    restore(state, file, NOW, replace=True)
    snapshot, workers = await _opened(state)
    kinds = {type(record) for record in snapshot.records}
    assert WorkerLease not in kinds
    assert WorkerApprovalGrant not in kinds
    assert workers[W1].work is Work.ORPHANED
    assert all(w.proof.attested_until_unix_ms <= NOW for i, w in workers.items() if i != W4)
    connection = sqlite3.connect(state / FLEET_FILES.database)
    (ended,) = connection.execute("SELECT count(*) FROM leases WHERE live = 0").fetchone()
    connection.close()
    assert (ended, snapshot.high_water_unix_ms, snapshot.clock_mark) == (1, NOW, None)


@pytest.mark.parametrize("how", ["lost", "damaged", "newer"])
async def test_where_the_state_cannot_be_read_everybody_is_quarantined(
    tmp_path: Path, how: str
) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    database = state / FLEET_FILES.database
    match how:
        case "lost":
            database.unlink()
        case "newer":
            connection = sqlite3.connect(database)
            connection.execute("UPDATE meta SET value = '9' WHERE key = 'schema_version'")
            connection.commit()
            connection.close()
        case _:
            database.write_bytes(b"\xa5" * 9_000)
    done = restore(state, file, NOW, replace=True)
    snapshot, workers = await _opened(state)
    assert {w.admission for w in workers.values()} == {Admission.QUARANTINED}
    assert workers[W1].quarantine is not None
    assert workers[W1].quarantine.reason == UNKNOWN
    assert done.newly_quarantined == 2
    assert snapshot.epoch > NOW
    assert snapshot.highest_fence >= NOW * FENCES_PER_MS
    assert (done.set_aside is None) == (how == "lost")


async def test_each_restore_of_one_snapshot_leaps_above_all_that_followed_the_last(
    tmp_path: Path,
) -> None:
    """What followed was lost each time: a fence is not given twice, an epoch not seen twice."""
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    reached: list[tuple[int, int]] = []
    for later_ms in (0, 1, 2, 60_000):
        (state / FLEET_FILES.database).unlink()
        restore(state, file, NOW + later_ms, workers_may_return=True)
        snapshot, _ = await _opened(state)
        reached.append((snapshot.epoch, snapshot.highest_fence))
    for (epoch, fence), (next_epoch, next_fence) in pairwise(reached):
        assert next_epoch >= epoch + 1
        assert next_fence >= fence + FENCES_PER_MS


async def test_whatever_is_restored_in_whatever_order_is_above_all_that_was(tmp_path: Path) -> None:
    """An older snapshot, then a newer one; one beside a state that can be read, then without it."""
    state, old, new = (tmp_path / name for name in ("state", "old", "new"))
    await _saved(state, old)
    restore(state, old, NOW + 3_600_000, replace=True)
    await _opened(state)
    save(state, new)
    reached: list[tuple[int, int]] = []
    history = ((old, True), (new, True), (new, False), (old, True), (new, False), (new, True))
    for hour, (file, is_lost) in enumerate(history, 2):
        if is_lost:
            (state / FLEET_FILES.database).unlink()
        restore(state, file, NOW + hour * 3_600_000, replace=not is_lost)
        snapshot, _ = await _opened(state)
        reached.append((snapshot.epoch, snapshot.highest_fence))
    for (epoch, fence), (next_epoch, next_fence) in pairwise(reached):
        assert next_epoch > epoch
        assert next_fence > fence


async def test_state_without_its_marker_frees_nobody(tmp_path: Path) -> None:
    """Nothing says that its event log is whole."""
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    (state / FLEET_FILES.marker).unlink()
    done = restore(state, file, NOW, replace=True)
    _, workers = await _opened(state)
    assert done.before == "incomplete"
    assert {w.admission for i, w in workers.items() if i != W4} == {Admission.QUARANTINED}


async def test_state_that_ends_before_its_marker_holds_whom_it_knows_and_frees_nobody(
    tmp_path: Path,
) -> None:
    """Its log of writes was lost, and with it perhaps a quarantine."""
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    marker = HeadKeeper(state, FLEET_FILES)
    marker.write(ChainHead(9_999, "a" * 64))
    marker.close()
    done = restore(state, file, NOW, replace=True)
    _, workers = await _opened(state)
    assert done.before == "incomplete"
    assert workers[W1].quarantine is not None
    assert workers[W1].quarantine.reason == UNKNOWN
    assert workers[W4].admission is Admission.BANNED
    assert {w.admission for i, w in workers.items() if i != W4} == {Admission.QUARANTINED}


async def test_an_operator_may_say_that_workers_return_without_the_state(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    (state / FLEET_FILES.database).unlink()
    restore(state, file, NOW, workers_may_return=True)
    _, workers = await _opened(state)
    assert workers[W1].admission is Admission.ACTIVE
    assert workers[W3].admission is Admission.QUARANTINED


async def test_state_that_is_there_is_not_replaced_unasked_and_never_deleted(
    tmp_path: Path,
) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    with pytest.raises(StateUnusable, match="--replace"):
        restore(state, file, NOW)
    _, workers = await _opened(state)
    assert ulid(9) in workers
    first = restore(state, file, NOW, replace=True).set_aside
    second = restore(state, file, NOW, replace=True).set_aside
    assert first is not None and second is not None and first != second
    connection = sqlite3.connect(first)
    known = connection.execute("SELECT count(*) FROM workers").fetchone()
    connection.close()
    assert known == (5,)


async def test_a_running_fleet_is_not_restored_under_its_feet(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    store = SqliteFleetStore(state)
    await store.open(0)
    with pytest.raises(StateUnusable, match="another process"):
        restore(state, file, NOW, replace=True)
    await store.close()


@pytest.mark.parametrize("flaw", ["cut", "a byte", "an event", "nothing", "a folder"])
async def test_a_snapshot_that_is_not_whole_is_refused_and_changes_nothing(
    tmp_path: Path, flaw: str
) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    match flaw:
        case "cut":
            os.truncate(file, file.stat().st_size // 2)
        case "a byte":
            content = bytearray(file.read_bytes())
            at = content.index(b'"admission":"active"')
            content[at + 2] = ord("x")
            file.write_bytes(content)
        case "an event":
            connection = sqlite3.connect(file)
            connection.execute("DROP TRIGGER events_are_final")
            connection.execute("UPDATE events SET actor = 'mallory' WHERE seq = 2")
            connection.commit()
            connection.close()
        case "nothing":
            file.unlink()
        case _:
            file.unlink()
            file.mkdir()
    before = {p.name: p.read_bytes() for p in state.iterdir() if p.is_file()}
    with pytest.raises(StateUnusable):
        inspect(file)
    with pytest.raises(StateUnusable):
        restore(state, file, NOW, replace=True)
    assert {p.name: p.read_bytes() for p in state.iterdir() if p.is_file()} == before


async def test_a_start_between_the_two_halves_of_a_restore_is_refused(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    await _saved(state, file)
    (state / RESTORING).touch(mode=0o600)
    with pytest.raises(StateUnusable, match="snapshot restore"):
        await SqliteFleetStore(state).open(0)


async def test_a_worker_of_the_snapshot_with_the_key_of_a_held_one_is_held_too(
    tmp_path: Path,
) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    async with Fleet(state) as fleet:
        world = fleet.world
        world.register(W1)
        await fleet.write()
        save(state, file)
        key = world.worker(W1).proof
        world.do(world.manager.evict(W1, "alice", "renamed", 3_000))
        world.register(W2, 3_000)
        await fleet.write()
        renamed = replace(
            world.worker(W2),
            proof=key,
            admission=Admission.QUARANTINED,
            quarantine=None,
        )
        await fleet.store.commit(replace(world.decisions[-1], records=(renamed,), events=()))
    restore(state, file, NOW, replace=True)
    snapshot, workers = await _opened(state)
    assert workers[W1].admission is Admission.QUARANTINED
    assert workers[W1].quarantine is not None
    assert workers[W1].quarantine.reason == HELD
    assert Tombstone(TombstoneKind.WORKER, W2) in snapshot.records


async def test_an_identity_that_took_a_workers_id_since_the_snapshot_stays_out(
    tmp_path: Path,
) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    async with Fleet(state) as fleet:
        world = fleet.world
        world.register(W1)
        await fleet.write()
        save(state, file)
        world.do(world.manager.evict(W1, "alice", "rebuilt", 3_000))
        world.do(world.manager.register(attested(W1, "new", "another"), 3_100))
        world.do(world.manager.quarantine(W1, "alice", "late", 3_200))
    restore(state, file, NOW, replace=True)
    snapshot, workers = await _opened(state)
    assert workers[W1].admission is Admission.QUARANTINED
    restored = LedgerWorld()
    restored.manager.state.load(snapshot.records, snapshot.highest_fence, NOW, 1)
    again = restored.manager.register(attested(W2, "fresh", "another", now_unix_ms=NOW), NOW)
    assert isinstance(again, Refusal)
    assert again.reason is FleetReason.WORKER_BANNED


async def test_what_was_taken_back_since_the_snapshot_is_not_trusted_again(
    tmp_path: Path,
) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    kept, gone = ReferenceValue("image", "1" * 64), ReferenceValue("image", "2" * 64)
    proxy, other = (EnrolledKey("proxy", n, key_of(n)) for n in ("proxy-1", "proxy-2"))
    later = EnrolledKey("launcher", "late", key_of("late"), revoked_at_unix_ms=2_900)
    event = LedgerEvent(EventReason.PROXY_ENROLLED, "alice")
    async with Fleet(state) as fleet:
        first = Decision(2_000, records=(kept, gone, proxy, other), events=(event,))
        await fleet.store.commit(first)
        save(state, file)
        since = (
            replace(proxy, seq=7, last_sha256="7" * 64, revoked_at_unix_ms=2_500),
            replace(other, seq=3, last_sha256="3" * 64),
            later,
            WithdrawnReference("image", "2" * 64),
            FleetFreeze(True, 2_800, True, "alice"),
        )
        await fleet.store.commit(Decision(3_000, records=since, events=(event,)))
    restore(state, file, NOW, replace=True)
    snapshot, _ = await _opened(state)
    kinds = (EnrolledKey, ReferenceValue, FleetFreeze)
    found = {record for record in snapshot.records if isinstance(record, kinds)}
    assert found == {*since[:3], kept, FleetFreeze(True, NOW, True, "alice")}


async def test_a_clock_that_once_ran_far_ahead_is_left_behind_by_a_restore(
    tmp_path: Path,
) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    async with Fleet(state) as fleet:
        fleet.world.register(W1)
        fleet.world.do(fleet.world.manager.quarantine(W1, "alice", "why", 9 * 10**12))
    save(state, file)
    restore(state, file, NOW, replace=True)
    snapshot, workers = await _opened(state)
    assert snapshot.high_water_unix_ms == NOW
    assert workers[W1].admission is Admission.QUARANTINED


async def test_ended_leases_of_a_restored_state_stay_ended(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "snapshot"
    world = await _saved(state, file)
    (lease,) = (r for d in world.decisions for r in d.records if _first_lease(r))
    restore(state, file, NOW, replace=True)
    store = SqliteFleetStore(state)
    await store.open(0)
    found = await store.lease(lease.lease_id)
    await store.close()
    assert found is not None and found.status is LeaseStatus.REVOKED


def _first_lease(record: object) -> bool:
    return isinstance(record, WorkerLease) and record.run_id == "run-1"
