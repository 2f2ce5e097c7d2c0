"""One contract, every store: what `FleetStore` promises, on memory and on SQLite."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.leases.records import LeaseStatus, WorkerLease
from palyra_fleet.ledger.decision import (
    Decision,
    EnrolledKey,
    EventReason,
    EvictedWorker,
    EvidenceRecord,
    LedgerEvent,
    ReferenceValue,
    Tombstone,
    TombstoneKind,
)
from palyra_fleet.ledger.facts import Admission
from palyra_fleet.store.protocol import FleetStore, Snapshot, StoreConflict, StoreFailed
from palyra_fleet.store.sqlite import SqliteFleetStore
from tests.fakes.ledger_world import LedgerWorld, key_of, ulid
from tests.fakes.memory_fleet_store import Disk, MemoryFleetStore

type Reopen = Callable[[], FleetStore]
W1, W2 = ulid(101), ulid(102)


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    disk = Disk()
    if request.param == "memory":
        return lambda: MemoryFleetStore(disk)
    return lambda: SqliteFleetStore(tmp_path / "state")


@pytest.fixture
async def store(reopen: Reopen) -> AsyncIterator[FleetStore]:
    store = reopen()
    await store.open(1_000)
    yield store
    await store.close()


class Written:
    """A small history of a pure ledger, every decision of it committed."""

    def __init__(self) -> None:
        self.world = LedgerWorld()

    async def play(self, store: FleetStore) -> WorkerLease:
        self.world.register(W1)
        self.world.register(W2)
        lease = self.world.lease(W1, "run-1", 2_100)
        for decision in self.world.decisions:
            await store.commit(decision)
        return lease


async def test_everything_committed_is_there_after_a_restart(
    store: FleetStore, reopen: Reopen
) -> None:
    written = Written()
    lease = await written.play(store)
    mark = Tombstone(TombstoneKind.KEY, "f" * 64)
    key = EnrolledKey("proxy", "proxy-1", key_of("p"), 3, "a" * 64)
    value = ReferenceValue("image", "b" * 64)
    event = LedgerEvent(EventReason.PROXY_ENROLLED, "alice", detail={"name": "proxy-1"})
    await store.commit(Decision(3_000, records=(mark, key, value), events=(event,)))
    await store.close()
    again = reopen()
    snapshot = await again.open(1_000)
    assert set(snapshot.records) == {
        *written.world.manager.state.workers.values(),
        lease,
        mark,
        key,
        value,
    }
    assert (snapshot.epoch, snapshot.highest_fence, snapshot.high_water_unix_ms) == (2, 1, 3_000)
    assert [e.reason for e in await again.events(0, 10)] == [
        "worker.registered",
        "worker.registered",
        "grant.created",
        "worker.assigned",
        "fleet.proxy_enrolled",
    ]
    assert await again.verify_events() == 5
    await again.close()


async def test_the_epoch_grows_at_every_start(reopen: Reopen) -> None:
    epochs = []
    for _ in range(3):
        store = reopen()
        snapshot: Snapshot = await store.open(1_000)
        epochs.append(snapshot.epoch)
        await store.close()
    assert epochs == [1, 2, 3]


async def test_a_store_that_is_closed_refuses(store: FleetStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreFailed):
        await store.commit(Decision(1))


async def test_fences_are_never_reused(store: FleetStore) -> None:
    lease = await Written().play(store)
    ended = replace(lease, status=LeaseStatus.COMPLETED)
    await store.commit(Decision(2_200, records=(ended,)))
    reused = replace(lease, lease_id=ulid(999), run_id="run-9")
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_300, records=(reused,), highest_fence=1))


def _another(lease: WorkerLease, **changes: object) -> WorkerLease:
    return replace(lease, lease_id=ulid(500), fence=lease.fence + 1, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "run-2"},  # the same worker twice
        {"worker_id": W2},  # the same run twice
        {"run_id": "run-2", "worker_id": ulid(7)},  # nobody's
        {"run_id": "run-2", "worker_id": W2, "grant_id": ulid(8)},  # approved by nobody
    ],
)
async def test_a_lease_that_breaks_an_invariant_is_refused(
    store: FleetStore, changes: dict[str, object]
) -> None:
    lease = await Written().play(store)
    before = await store.events(0, 100)
    event = LedgerEvent(EventReason.ASSIGNED, "x")
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_200, records=(_another(lease, **changes),), events=(event,)))
    assert await store.events(0, 100) == before
    assert await store.lease(ulid(500)) is None


async def test_an_ended_lease_stays_ended(store: FleetStore) -> None:
    lease = await Written().play(store)
    await store.commit(Decision(2_200, records=(replace(lease, status=LeaseStatus.REVOKED),)))
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_300, records=(lease,)))


async def test_grants_go_on_after_the_one_before(store: FleetStore) -> None:
    lease = await Written().play(store)
    (first,) = await store.grants(5)
    ids = [f"01{n}RZ3NDEKTSV4RRFFQ69G5FAV" for n in "BCDE"]
    made = [replace(first, grant_id=one, run_id=one, uses=0) for one in ids]
    await store.commit(Decision(2_200, records=tuple(made)))
    newest = [one.grant_id for one in await store.grants(9)]
    assert newest == sorted([lease.grant_id, *ids], reverse=True)
    assert [one.grant_id for one in await store.grants(2, newest[1])] == newest[2:4]
    assert await store.grants(9, newest[-1]) == ()


async def test_leases_go_on_after_the_one_before_and_the_ended_ones_stay_listed(
    store: FleetStore,
) -> None:
    live = await Written().play(store)
    given = [replace(live, lease_id=ulid(500 + n), fence=live.fence + n) for n in (1, 2, 3)]
    for one in given:
        others = replace(one, worker_id=W2, run_id=f"run-{one.fence}")
        await store.commit(Decision(2_200, records=(others,), highest_fence=one.fence))
        over = replace(others, status=LeaseStatus.REVOKED, ended_at_unix_ms=2_250)
        await store.commit(Decision(2_250, records=(over,)))
    fences = [one.fence for one in (*reversed(given), live)]
    assert [one.fence for one in await store.leases(9)] == fences
    assert [one.fence for one in await store.leases(2, fences[1])] == fences[2:]
    ended = await store.leases(9, ended=True)
    assert [(one.fence, one.status) for one in ended] == [
        (fence, LeaseStatus.REVOKED) for fence in fences[:3]
    ]
    assert [one.fence for one in await store.leases(1, fences[0], ended=True)] == fences[1:2]
    assert await store.leases(9, live.fence) == ()


async def test_a_grant_is_spent_at_most_once(store: FleetStore) -> None:
    lease = await Written().play(store)
    grant = await store.grant(lease.grant_id)
    assert grant is not None
    assert (grant.uses, await store.grants(5)) == (1, (grant,))
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_200, records=(replace(grant, uses=2),)))


async def test_a_confined_worker_holds_no_lease_and_is_not_forgotten(store: FleetStore) -> None:
    written = Written()
    lease = await written.play(store)
    confined = replace(written.world.worker(W1), admission=Admission.QUARANTINED)
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_200, records=(confined,)))
    ended = replace(lease, status=LeaseStatus.REVOKED)
    await store.commit(Decision(2_300, records=(confined, ended)))
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_400, records=(EvictedWorker(W1),)))
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_400, records=(_another(lease, run_id="run-2"),)))


async def test_a_ban_is_final(store: FleetStore) -> None:
    written = Written()
    await written.play(store)
    worker = written.world.worker(W2)
    await store.commit(Decision(2_200, records=(replace(worker, admission=Admission.BANNED),)))
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_300, records=(worker,)))


async def test_an_enrolled_name_keeps_its_key(store: FleetStore) -> None:
    await store.commit(Decision(1, records=(EnrolledKey("proxy", "p", key_of("1")),)))
    for other in (EnrolledKey("proxy", "p", key_of("2")), EnrolledKey("proxy", "q", key_of("1"))):
        with pytest.raises(StoreConflict):
            await store.commit(Decision(1, records=(other,)))


def _evidence(seq: int, outcome: str = "struck", worker_id: str = W1) -> EvidenceRecord:
    return EvidenceRecord(
        f"{seq:064x}",
        "proxy-1",
        seq,
        worker_id,
        2_000,
        1_000 + seq,
        outcome,
        b"{}",  # type: ignore[arg-type]
    )


async def test_evidence_is_kept_once_and_found_again(store: FleetStore) -> None:
    for evidence in (_evidence(1), _evidence(2), _evidence(3, "recorded"), _evidence(4)):
        await store.commit(Decision(2_000, records=(evidence,)))
    await store.commit(Decision(2_000, records=(_evidence(5, worker_id=W2),)))
    assert await store.evidence(_evidence(1).evidence_sha256) == _evidence(1)
    assert await store.evidence("9" * 64) is None
    assert await store.violations(W1, 2) == (_evidence(4), _evidence(3, "recorded"))
    assert len(await store.violations(None, 10)) == 5
    third = _evidence(3, "recorded").evidence_sha256
    assert await store.violations(W1, 10, third) == (_evidence(2), _evidence(1))
    assert await store.violations(None, 1, third) == (_evidence(2),)
    assert await store.violations(None, 10, _evidence(1).evidence_sha256) == ()
    assert await store.violations(None, 10, "9" * 64) == ()
    assert await store.strikes(W1, 1_001) == 2
    other = replace(_evidence(1), evidence_sha256="8" * 64)
    with pytest.raises(StoreConflict):
        await store.commit(Decision(2_000, records=(other,)))


async def test_events_come_in_pages(store: FleetStore) -> None:
    events = tuple(LedgerEvent(EventReason.HEARTBEAT, "fleet", W1) for _ in range(5))
    await store.commit(Decision(2_000, events=events))
    assert [e.seq for e in await store.events(2, 2)] == [3, 4]


async def test_the_newest_events_come_first_of_one_worker_or_of_all(store: FleetStore) -> None:
    about = (W1, W2, None, W1, W2)
    events = tuple(LedgerEvent(EventReason.HEARTBEAT, "fleet", one) for one in about)
    await store.commit(Decision(2_000, events=events))
    assert [e.worker_id for e in await store.recent_events(None, 3)] == [W2, W1, None]
    first, second = await store.recent_events(W1, 10)
    assert (first.worker_id, second.worker_id) == (W1, W1)
    assert first.seq > second.seq
    assert await store.recent_events(W1, 1) == (first,)
    assert await store.recent_events(W1, 10, first.seq) == (second,)
    assert await store.recent_events(None, 10, 1) == ()
