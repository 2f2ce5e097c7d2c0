"""A decision in the making: reads see what was drafted, the ledger itself stays untouched.

Commands that do several things (a heartbeat that comes too late, an expiry and a quarantine) are
built from the same small steps over one draft, so that every step is written once. Only the steps
here end a lease or confine a worker, and no command can forget to void a request for a release that
it made untrue. Times: Unix ms.
"""

from dataclasses import dataclass, field, replace

from palyra_fleet.leases.records import LeaseStatus, WorkerLease
from palyra_fleet.ledger.decision import (
    Beat,
    Decision,
    Detail,
    EventReason,
    LedgerEvent,
    Notice,
    PolicyWord,
    Record,
    Tombstone,
    TombstoneKind,
)
from palyra_fleet.ledger.facts import (
    Admission,
    Liveness,
    Quarantine,
    Work,
    WorkerRecord,
    why_void,
)
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.wire.placement_models import OrderKind

FLEET_ACTOR = "fleet"


@dataclass(slots=True)
class Draft:
    """Collects the effects of one command at one moment."""

    state: LedgerState
    now_unix_ms: int
    actor: str = FLEET_ACTOR
    _workers: dict[str, WorkerRecord] = field(default_factory=dict)
    _leases: dict[str, WorkerLease] = field(default_factory=dict)
    _others: list[Record] = field(default_factory=list)
    _events: list[LedgerEvent] = field(default_factory=list)
    _beats: dict[str, Beat] = field(default_factory=dict)
    _words: list[PolicyWord] = field(default_factory=list)
    _notices: list[Notice] = field(default_factory=list)
    _quarantines: int = 0

    def worker(self, worker_id: str) -> WorkerRecord:
        return self._workers.get(worker_id) or self.state.workers[worker_id]

    def live_lease_of(self, worker_id: str) -> WorkerLease | None:
        lease = self.state.live_lease_of(worker_id)
        if lease is None:
            return None
        lease = self._leases.get(lease.lease_id, lease)
        return lease if lease.status.live else None

    def put_worker(self, worker: WorkerRecord) -> None:
        self._workers[worker.worker_id] = worker

    def put_lease(self, lease: WorkerLease) -> None:
        self._leases[lease.lease_id] = lease

    def put(self, record: Record) -> None:
        self._others.append(record)

    def beat(self, beat: Beat) -> None:
        self._beats[beat.worker_id] = beat

    def hear(self, word: PolicyWord) -> None:
        self._words.append(word)

    def notice(self, worker_id: str, kind: OrderKind, lease_id: str | None, reason: str) -> None:
        self._notices.append(Notice(worker_id, kind, lease_id, reason))

    def event(
        self,
        reason: EventReason,
        worker_id: str | None,
        lease_id: str | None = None,
        detail: Detail | None = None,
    ) -> None:
        self._events.append(LedgerEvent(reason, self.actor, worker_id, lease_id, detail or {}))

    def end_lease(
        self, lease: WorkerLease, status: LeaseStatus, reason: EventReason, why: str
    ) -> None:
        """End a live lease early or late: the run is orphaned until new evidence comes."""
        self._leases[lease.lease_id] = replace(
            lease, status=status, ended_at_unix_ms=self.now_unix_ms
        )
        worker = self.worker(lease.worker_id)
        self.put_worker(replace(worker, work=Work.ORPHANED, cleanup_verified=False))
        detail: Detail = {
            "fence": lease.fence,
            "run_id": lease.run_id,
            "why": why,
        }
        self.event(reason, lease.worker_id, lease.lease_id, detail)
        self.notice(lease.worker_id, OrderKind.STOP_LEASE, lease.lease_id, reason.value)

    def go_stale(self, worker_id: str) -> None:
        """The heartbeat deadline passed: offline, and a lease it held is orphaned."""
        self.put_worker(replace(self.worker(worker_id), liveness=Liveness.STALE))
        lease = self.live_lease_of(worker_id)
        if lease is None:
            self.event(EventReason.HEARTBEAT_STALE, worker_id)
            return
        self.end_lease(lease, LeaseStatus.ORPHANED, EventReason.HEARTBEAT_STALE, "heartbeat missed")

    def confine(
        self,
        worker_id: str,
        reason: EventReason,
        why: str,
        evidence_sha256: str | None,
        decision_id: str | None = None,
    ) -> None:
        """Quarantine: admission, live lease, candidate evidence and the worker's orders."""
        lease = self.live_lease_of(worker_id)
        if lease is not None:
            self.end_lease(lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, reason.value)
        self.mark_quarantined(worker_id, why, evidence_sha256, decision_id)
        detail: Detail = {
            "why": why,
            "evidence_sha256": evidence_sha256,
            "decision_id": decision_id,
        }
        self.event(reason, worker_id, None if lease is None else lease.lease_id, detail)
        self.notice(worker_id, OrderKind.QUARANTINED, None, reason.value)

    def mark_quarantined(
        self,
        worker_id: str,
        why: str,
        evidence_sha256: str | None,
        decision_id: str | None = None,
    ) -> None:
        worker = self.worker(worker_id)
        key = (worker.candidate or worker.proof).key_sha256
        if key != worker.proof.key_sha256:  # confined with this key too: never a new one again
            self.put(Tombstone(TombstoneKind.KEY, key))
        quarantine = Quarantine(
            why, self.now_unix_ms, evidence_sha256, worker.attestation_epoch, key, decision_id
        )
        self.put_worker(
            replace(worker, admission=Admission.QUARANTINED, quarantine=quarantine, candidate=None)
        )
        self._quarantines += 1

    def end_release_request(
        self, worker: WorkerRecord, reason: EventReason, why: str, more: Detail | None = None
    ) -> None:
        """The worker's release is asked for no more, and the log says what became of it."""
        request = worker.release_request
        if request is None:
            return
        self.put_worker(replace(worker, release_request=None))
        detail: Detail = {
            "release_id": request.release_id,
            "asked_by": request.asked_by,
            "why": why,
            **(more or {}),
        }
        self.event(reason, worker.worker_id, None, detail)

    def _void_requests(self) -> None:
        """A request that no longer speaks of its worker is void, whatever changed the worker."""
        for worker in tuple(self._workers.values()):
            request = worker.release_request
            why = None if request is None else why_void(worker, request)
            if why is not None:
                self.end_release_request(worker, EventReason.RELEASE_VOIDED, why)

    def finish(self) -> Decision:
        self._void_requests()
        return Decision(
            at_unix_ms=self.now_unix_ms,
            records=(*self._workers.values(), *self._leases.values(), *self._others),
            events=tuple(self._events),
            beats=tuple(self._beats.values()),
            words=tuple(self._words),
            notices=tuple(self._notices),
            highest_fence=max((lease.fence for lease in self._leases.values()), default=0),
            quarantines=self._quarantines,
        )
