"""MemoryFleetStore: the FleetStore contract in dictionaries, plus faults to inject.

`disk` outlives the store object, so `MemoryFleetStore(disk)` is a restart. A commit works on copies
and is all or nothing. `fail_next` makes the next commit fail before it writes anything.
"""

import asyncio
from copy import deepcopy
from dataclasses import dataclass, field
from typing import assert_never

from palyra_fleet.clock import ClockMark
from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import (
    Decision,
    EnrolledKey,
    EvictedWorker,
    EvidenceRecord,
    FleetFreeze,
    Record,
    ReferenceValue,
    Tombstone,
    WithdrawnReference,
)
from palyra_fleet.ledger.facts import Admission, WorkerRecord
from palyra_fleet.store.event_chain import ChainHead, follow, link_all
from palyra_fleet.store.protocol import Pruned, Retention, Snapshot, StoreConflict, StoreFailed
from palyra_fleet.wire.models import EventView


@dataclass(slots=True)
class Disk:
    """What survives a restart."""

    epoch: int = 0
    highest_fence: int = 0
    high_water_unix_ms: int = 0
    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    leases: dict[str, WorkerLease] = field(default_factory=dict)
    grants: dict[str, WorkerApprovalGrant] = field(default_factory=dict)
    others: dict[object, Record] = field(default_factory=dict)
    evidence: dict[str, EvidenceRecord] = field(default_factory=dict)
    events: list[EventView] = field(default_factory=list)
    clock_mark: ClockMark | None = None


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise StoreConflict(text)


class MemoryFleetStore:
    """FleetStore in memory."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self.fail_next: StoreFailed | None = None
        self._failed: StoreFailed | None = None
        self._open = False

    async def open(self, now_unix_ms: int) -> Snapshot:
        disk = self.disk
        self._open = True
        disk.epoch += 1
        disk.high_water_unix_ms = max(disk.high_water_unix_ms, now_unix_ms)
        return self._snapshot()

    def _snapshot(self) -> Snapshot:
        disk = self.disk
        records: tuple[Record, ...] = (
            *disk.workers.values(),
            *(lease for lease in disk.leases.values() if lease.status.live),
            *(
                g
                for g in disk.grants.values()
                if g.usable(disk.high_water_unix_ms) or g.rule is not None
            ),
            *disk.others.values(),
        )
        return Snapshot(
            disk.epoch,
            disk.highest_fence,
            disk.high_water_unix_ms,
            records,
            disk.clock_mark,
            _head(disk.events).seq,
        )

    async def close(self) -> None:
        self._open = False

    def submit(self, decision: Decision, mark: ClockMark | None = None) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            if self._failed is not None:
                raise self._failed
            self._commit(decision, mark)
            done.set_result(None)
        except (StoreConflict, StoreFailed) as error:
            self._failed = StoreFailed("an earlier decision failed", ambiguous=False)
            done.set_exception(error)
            done.exception()
        return done

    async def commit(self, decision: Decision, mark: ClockMark | None = None) -> None:
        try:
            await self.submit(decision, mark)
        finally:
            self._failed = None

    async def reload(self) -> Snapshot:
        self._check()
        self._failed = None
        return self._snapshot()

    async def prune(self, keep: Retention, now_unix_ms: int) -> Pruned:
        self._check()
        disk, horizon = self.disk, now_unix_ms - keep.ended_ms
        over = [k for k, v in disk.leases.items() if (v.ended_at_unix_ms or horizon) < horizon]
        for lease_id in over[: keep.step]:
            del disk.leases[lease_id]
        held = {lease.grant_id for lease in disk.leases.values()}
        used = [
            k for k, v in disk.grants.items() if v.expires_at_unix_ms < horizon and k not in held
        ]
        for grant_id in used[: keep.step]:
            del disk.grants[grant_id]
        return Pruned(len(over), len(used), 0)

    def _commit(self, decision: Decision, mark: ClockMark | None) -> None:
        self._check()
        failure, self.fail_next = self.fail_next, None
        if failure is not None:
            raise failure
        disk = deepcopy(self.disk)
        for record in sorted(decision.records, key=_rank):
            _write(disk, record)
        head = _head(disk.events)
        entries, _ = link_all(head, decision.events, decision.at_unix_ms)
        disk.events += entries
        disk.highest_fence = max(disk.highest_fence, decision.highest_fence)
        disk.high_water_unix_ms = max(disk.high_water_unix_ms, decision.at_unix_ms)
        disk.clock_mark = mark or disk.clock_mark
        for name in Disk.__slots__:
            setattr(self.disk, name, getattr(disk, name))

    async def lease(self, lease_id: str) -> WorkerLease | None:
        self._check()
        return self.disk.leases.get(lease_id)

    async def leases(
        self, limit: int, before_fence: int | None = None, *, ended: bool = False
    ) -> tuple[WorkerLease, ...]:
        self._check()
        found = [one for one in self.disk.leases.values() if not (ended and one.status.live)]
        older = [one for one in found if before_fence is None or one.fence < before_fence]
        return tuple(sorted(older, key=lambda one: one.fence, reverse=True)[:limit])

    async def grant(self, grant_id: str) -> WorkerApprovalGrant | None:
        self._check()
        return self.disk.grants.get(grant_id)

    async def grants(
        self, limit: int, before: str | None = None
    ) -> tuple[WorkerApprovalGrant, ...]:
        self._check()
        older = [id for id in self.disk.grants if before is None or id < before]
        return tuple(self.disk.grants[id] for id in sorted(older, reverse=True)[:limit])

    async def evidence(self, evidence_sha256: str) -> EvidenceRecord | None:
        self._check()
        return self.disk.evidence.get(evidence_sha256)

    async def violations(
        self, worker_id: str | None, limit: int, before: str | None = None
    ) -> tuple[EvidenceRecord, ...]:
        self._check()
        newest = list(reversed(self.disk.evidence.values()))
        if before is not None:
            digests = [e.evidence_sha256 for e in newest]
            newest = newest[digests.index(before) + 1 :] if before in digests else []
        return tuple(e for e in newest if worker_id in {None, e.worker_id})[:limit]

    async def strikes(self, worker_id: str, after_unix_ms: int) -> int:
        self._check()
        return sum(
            e.worker_id == worker_id and e.outcome == "struck" and e.at_unix_ms > after_unix_ms
            for e in self.disk.evidence.values()
        )

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        self._check()
        return tuple(e for e in self.disk.events if e.seq > after_seq)[:limit]

    async def recent_events(
        self, worker_id: str | None, limit: int, before_seq: int | None = None
    ) -> tuple[EventView, ...]:
        self._check()
        newest = [e for e in reversed(self.disk.events) if worker_id in {None, e.worker_id}]
        return tuple(e for e in newest if before_seq is None or e.seq < before_seq)[:limit]

    async def verify_events(self) -> int:
        self._check()
        return follow(ChainHead(), self.disk.events).seq

    def _check(self) -> None:
        if not self._open:
            raise StoreFailed("the store is closed", ambiguous=False)


def _head(events: list[EventView]) -> ChainHead:
    return ChainHead(events[-1].seq, events[-1].sha256) if events else ChainHead()


def _rank(record: Record) -> int:
    order = (WorkerApprovalGrant, WorkerLease, (WorkerRecord, EvictedWorker))
    return next((i for i, kind in enumerate(order) if isinstance(record, kind)), 3)


def _write(disk: Disk, record: Record) -> None:
    match record:
        case WorkerRecord(worker_id):
            _write_worker(disk, record)
        case EvictedWorker(worker_id):
            known = disk.workers.pop(worker_id, None)
            held = known is not None and _leased(disk, worker_id)
            confined = known is not None and known.confined
            _require(not held and not confined, "a confined or leased worker is not forgotten")
        case WorkerLease():
            _write_lease(disk, record)
        case WorkerApprovalGrant():
            _require(0 <= record.uses <= record.max_uses, "a grant is spent at most max_uses times")
            disk.grants[record.grant_id] = record
        case Tombstone() | ReferenceValue():
            disk.others[record] = record
        case FleetFreeze():
            disk.others[FleetFreeze] = record
        case WithdrawnReference(digest_field, digest):
            disk.others.pop(ReferenceValue(digest_field, digest), None)
        case EnrolledKey(kind, name, public_key):
            enrolled = [e for e in disk.others.values() if isinstance(e, EnrolledKey)]
            for other in enrolled:
                same = (other.kind, other.name) == (kind, name)
                _require(same == (other.public_key == public_key), "enrolled otherwise")
            disk.others[kind, name] = record
        case EvidenceRecord():
            taken = any(
                (e.proxy_id, e.seq) == (record.proxy_id, record.seq) for e in disk.evidence.values()
            )
            _require(not taken and record.evidence_sha256 not in disk.evidence, "seen before")
            disk.evidence[record.evidence_sha256] = record
        case _:
            assert_never(record)


def _leased(disk: Disk, worker_id: str) -> bool:
    return any(lease.status.live and lease.worker_id == worker_id for lease in disk.leases.values())


def _write_worker(disk: Disk, worker: WorkerRecord) -> None:
    _require(
        not (worker.confined and _leased(disk, worker.worker_id)),
        "a confined worker holds no live lease",
    )
    old = disk.workers.get(worker.worker_id)
    banned = old is not None and old.admission is Admission.BANNED
    _require(not banned or worker.admission is Admission.BANNED, "a ban is final")
    for other in disk.workers.values():
        apart = other.worker_id == worker.worker_id or (
            other.evidence_identity != worker.evidence_identity
            and other.proof.key_sha256 != worker.proof.key_sha256
        )
        _require(apart, "identity and key are unique")
    disk.workers[worker.worker_id] = worker


def _write_lease(disk: Disk, lease: WorkerLease) -> None:
    old = disk.leases.get(lease.lease_id)
    if old is None:
        _require(lease.fence > disk.highest_fence, "fences must grow")
        worker = disk.workers.get(lease.worker_id)
        active = worker is not None and worker.admission is Admission.ACTIVE
        _require(active or not lease.status.live, "a live lease needs an active worker")
        _require(lease.grant_id in disk.grants, "a lease needs its grant")
    else:
        _require(old.status.live and old.fence == lease.fence, "an ended lease stays as it is")
    for other in disk.leases.values():
        clash = other.status.live and lease.status.live and other.lease_id != lease.lease_id
        same = other.worker_id == lease.worker_id or other.run_id == lease.run_id
        _require(not (clash and same), "one live lease per worker and per run")
    disk.leases[lease.lease_id] = lease
