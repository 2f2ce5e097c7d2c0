"""A decision in the making: reads see what was drafted, the ledger itself stays untouched.

Commands that do several things (a heartbeat that comes too late, an expiry and a quarantine) are
built from the same small steps over one draft, so that every step is written once. Only the steps
here end a lease or confine a worker, and no command can forget to void a request for a release that
it made untrue, nor to end an offer whose worker or approval is no longer good. Times: Unix ms.
"""

from dataclasses import dataclass, field, replace

from palyra_fleet.leases.offers import Offer
from palyra_fleet.leases.records import LeaseStatus, WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import (
    Beat,
    Decision,
    Detail,
    EventReason,
    EvictedWorker,
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
    idle,
    why_void,
    with_outcome,
)
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.wire.placement_models import OfferState, OrderKind

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
    _offers: dict[str, Offer] = field(default_factory=dict)
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
        if status in {LeaseStatus.EXPIRED, LeaseStatus.ORPHANED}:
            worker = with_outcome(worker, failed=True)
        self.put_worker(replace(worker, work=Work.ORPHANED, cleanup_verified=False))
        detail: Detail = {
            "fence": lease.fence,
            "run_id": lease.run_id,
            "why": why,
        }
        self.event(reason, lease.worker_id, lease.lease_id, detail)
        self.notice(lease.worker_id, OrderKind.STOP_LEASE, lease.lease_id, reason.value)

    def shorten_lease_of(self, worker_id: str, until_unix_ms: int) -> None:
        """A live lease of the worker ends no later than that."""
        lease = self.live_lease_of(worker_id)
        if lease is None or lease.expires_at_unix_ms <= until_unix_ms:
            return
        self.put_lease(replace(lease, expires_at_unix_ms=until_unix_ms))
        detail: Detail = {"fence": lease.fence, "expires_at_unix_ms": until_unix_ms}
        self.event(EventReason.LEASE_SHORTENED, worker_id, lease.lease_id, detail)

    def go_stale(self, worker_id: str) -> None:
        """The heartbeat deadline passed: offline; a lease it held is orphaned, an offer ends."""
        self.end_offer_to(worker_id, "heartbeat missed")
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
            replace(
                worker,
                admission=Admission.QUARANTINED,
                quarantine=quarantine,
                candidate=None,
                demand=None,  # the way out of quarantine takes newer evidence and a new key anyway
            )
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

    def offer(self, offer: Offer, detail: Detail) -> None:
        """Keep a run for a worker, and tell it."""
        self._offers[offer.offer_id] = offer
        self.event(EventReason.OFFERED, offer.worker_id, None, detail)
        reason = EventReason.OFFERED.value
        self._notices.append(Notice(offer.worker_id, OrderKind.OFFERED, None, reason, offer))

    def open_offer_to(self, worker_id: str) -> Offer | None:
        """The offer that this worker has, unless it ends in this draft."""
        offer = self.state.placing.offer_to(worker_id)
        if offer is None:
            return None
        offer = self._offers.get(offer.offer_id, offer)
        return offer if offer.state is OfferState.OPEN else None

    def take_offer(self, offer: Offer, lease_id: str) -> None:
        """The worker has the lease of what it was offered."""
        self._offers[offer.offer_id] = replace(offer, state=OfferState.TAKEN, lease_id=lease_id)

    def end_offer(self, offer: Offer, state: OfferState, reason: EventReason, why: str) -> None:
        """The run is free again. A worker that did not take it waits no more until it says so."""
        self._offers[offer.offer_id] = replace(offer, state=state)
        if state is not OfferState.ENDED:
            self.wait_no_more(offer.worker_id)
        detail: Detail = {"offer_id": offer.offer_id, "run_id": offer.order.run_id, "why": why}
        self.event(reason, offer.worker_id, None, detail)

    def end_offer_to(self, worker_id: str, why: str) -> None:
        """End the open offer of this worker, if it has one, as nobody's failure."""
        offer = self.open_offer_to(worker_id)
        if offer is not None:
            self.end_offer(offer, OfferState.ENDED, EventReason.OFFER_ENDED, why)

    def wait_no_more(self, worker_id: str) -> None:
        """Its word that it waits is used up; the next beat may say it again."""
        beat = self._beats.get(worker_id) or self.state.beats.get(worker_id)
        if beat is not None and beat.waits:
            self.beat(replace(beat, waits=False))

    def _end_offers(self) -> None:
        """An offer whose worker may take it no more, or whose approval is gone, is over, whatever
        changed them; none outlives its worker's evidence."""
        for worker in tuple(self._workers.values()):
            offer, until = self.open_offer_to(worker.worker_id), worker.proof.attested_until_unix_ms
            if offer is None:
                continue
            if not idle(worker) or until <= self.now_unix_ms:
                self.end_offer_to(worker.worker_id, "the worker can take it no more")
            elif until < offer.expires_at_unix_ms:
                self._offers[offer.offer_id] = replace(offer, expires_at_unix_ms=until)
        for record in tuple(self._others):
            if isinstance(record, EvictedWorker):
                self.end_offer_to(record.worker_id, "the worker is forgotten")
            elif isinstance(record, WorkerApprovalGrant) and not record.usable(self.now_unix_ms):
                offer = self.state.placing.offer_of(record.run_id)
                if offer is not None and offer.grant_id == record.grant_id:
                    self.end_offer_to(offer.worker_id, "its approval can be used no more")

    def finish(self) -> Decision:
        self._void_requests()
        self._end_offers()
        return Decision(
            at_unix_ms=self.now_unix_ms,
            records=(*self._workers.values(), *self._leases.values(), *self._others),
            events=tuple(self._events),
            beats=tuple(self._beats.values()),
            words=tuple(self._words),
            offers=tuple(self._offers.values()),
            notices=tuple(self._notices),
            highest_fence=max((lease.fence for lease in self._leases.values()), default=0),
            quarantines=self._quarantines,
        )
