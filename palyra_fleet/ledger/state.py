"""The in-memory ledger: indexes over durable records, plus heartbeats, deadlines, proxies'
words, offers.

`apply` is the only way anything here changes, and it takes a decision that was made durable. It
keeps a monotone high-water mark of `now`: a clock that moves back never lengthens or revives
anything. Live leases and usable grants are held; ended ones rest in the store. Times: Unix ms.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, assert_never

from palyra_fleet.leases.offers import Offer
from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.deadlines import DeadlineHeap, DeadlineKind
from palyra_fleet.ledger.decision import (
    Beat,
    Decision,
    EnrolledKey,
    EvictedWorker,
    EvidenceRecord,
    FleetFreeze,
    PolicyWord,
    Record,
    ReferenceValue,
    Tombstone,
    WithdrawnReference,
)
from palyra_fleet.ledger.facts import Liveness, WorkerRecord, idle, score
from palyra_fleet.ledger.placing_index import PlacingIndex
from palyra_fleet.ledger.rule_counts import RuleCounts

STORM_WINDOW_MS = 60_000


@dataclass(slots=True)
class LedgerState:
    """What the fleet knows right now."""

    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    worker_by_key: dict[str, str] = field(default_factory=dict)
    worker_by_identity: dict[str, str] = field(default_factory=dict)
    worker_by_release: dict[str, str] = field(default_factory=dict)
    leases: dict[str, WorkerLease] = field(default_factory=dict)
    lease_by_worker: dict[str, str] = field(default_factory=dict)
    lease_by_run: dict[str, str] = field(default_factory=dict)
    leases_per_principal: Counter[str] = field(default_factory=Counter)
    grants: dict[str, WorkerApprovalGrant] = field(default_factory=dict)
    grants_by_run: dict[str, dict[str, None]] = field(default_factory=dict)
    rules: RuleCounts = field(default_factory=RuleCounts)
    tombstones: set[Tombstone] = field(default_factory=set)
    enrolled: dict[tuple[Literal["launcher", "proxy"], str], EnrolledKey] = field(
        default_factory=dict
    )
    references: set[ReferenceValue] = field(default_factory=set)
    beats: dict[str, Beat] = field(default_factory=dict)
    policy_words: dict[str, PolicyWord] = field(default_factory=dict)
    placing: PlacingIndex = field(default_factory=PlacingIndex)
    deadlines: DeadlineHeap = field(default_factory=DeadlineHeap)
    recent_quarantines: deque[int] = field(default_factory=deque)
    freeze: FleetFreeze = field(default_factory=lambda: FleetFreeze(False, 0))
    highest_fence: int = 0
    high_water_unix_ms: int = 0

    def load(
        self, records: Iterable[Record], highest_fence: int, now_unix_ms: int, heartbeat_ms: int
    ) -> None:
        """Fill an empty ledger from the store. A live worker gets one timeout to beat again, and
        the quarantines of the last minute still count as a storm."""
        self.highest_fence = highest_fence
        self.high_water_unix_ms = now_unix_ms
        for record in records:
            self._put(record)
        for worker in self.workers.values():
            if worker.liveness is Liveness.LIVE:
                self._beat(Beat(worker.worker_id, 0, now_unix_ms + heartbeat_ms))
        quarantined_at = (
            min(w.quarantine.at_unix_ms, now_unix_ms) for w in self.workers.values() if w.quarantine
        )
        since = 0 if self.freeze.frozen else self.freeze.at_unix_ms
        recent = (at for at in quarantined_at if at > max(since, now_unix_ms - STORM_WINDOW_MS))
        self.recent_quarantines.extend(sorted(recent))

    def keep_memory(self, before: "LedgerState") -> None:
        """Heartbeats that were taken before stay taken, of workers that are still live; and so do
        the words of proxies."""
        self.policy_words = dict(before.policy_words)
        self._keep_beats(before.beats)

    def _keep_beats(self, beats: Mapping[str, Beat]) -> None:
        for worker_id, beat in beats.items():
            worker = self.workers.get(worker_id)
            if worker is not None and worker.liveness is Liveness.LIVE:
                self._beat(beat)

    def apply(self, decision: Decision) -> None:
        """Take over a decision. The caller has made it durable."""
        self.high_water_unix_ms = max(self.high_water_unix_ms, decision.at_unix_ms)
        self.highest_fence = max(self.highest_fence, decision.highest_fence)
        for record in decision.records:
            self._put(record)
        for beat in decision.beats:
            self._beat(beat)
        for word in decision.words:
            self._hear(word)
        for offer in decision.offers:
            self._put_offer(offer)
        self.recent_quarantines.extend([self.high_water_unix_ms] * decision.quarantines)
        if decision.reaped:
            self._drop_deadlines(decision.at_unix_ms)
        while (
            self.recent_quarantines
            and self.recent_quarantines[0] + STORM_WINDOW_MS <= self.high_water_unix_ms
        ):
            self.recent_quarantines.popleft()

    def _drop_deadlines(self, now_unix_ms: int) -> None:
        for kind, subject_id in self.deadlines.due(now_unix_ms):
            if kind is DeadlineKind.GRANT:
                self._forget_grant(subject_id)
            elif kind is DeadlineKind.WAITING:
                self.placing.leave(subject_id)
        self.deadlines.drop_until(now_unix_ms)

    def live_lease_of(self, worker_id: str) -> WorkerLease | None:
        lease_id = self.lease_by_worker.get(worker_id)
        return None if lease_id is None else self.leases[lease_id]

    def usable_grant(
        self, run_id: str, now_unix_ms: int, worker_id: str | None = None
    ) -> WorkerApprovalGrant | None:
        """The first usable grant for a run; that this worker may spend, if one is named."""
        for grant_id in self.grants_by_run.get(run_id, ()):
            grant = self.grants[grant_id]
            if grant.usable(now_unix_ms) and (worker_id is None or grant.is_for(worker_id)):
                return grant
        return None

    def _put(self, record: Record) -> None:
        match record:
            case WorkerRecord():
                self._put_worker(record)
            case EvictedWorker(worker_id):
                self._forget_worker(worker_id)
            case WorkerLease():
                self._put_lease(record)
            case WorkerApprovalGrant():
                self._put_grant(record)
            case Tombstone():
                self.tombstones.add(record)
            case EnrolledKey(kind, name):
                self.enrolled[kind, name] = record
            case ReferenceValue():
                self.references.add(record)
            case WithdrawnReference(field_name, digest):
                self.references.discard(ReferenceValue(field_name, digest))
            case FleetFreeze(frozen=frozen):
                self.freeze = record
                if not frozen:
                    self.recent_quarantines.clear()
            case EvidenceRecord():
                pass  # kept by the store only
            case _:
                assert_never(record)

    def _put_worker(self, worker: WorkerRecord) -> None:
        self._unindex(worker.worker_id)
        self.workers[worker.worker_id] = worker
        self.worker_by_identity[worker.evidence_identity] = worker.worker_id
        self.worker_by_key[worker.proof.key_sha256] = worker.worker_id
        if worker.candidate is not None:
            self.worker_by_key[worker.candidate.key_sha256] = worker.worker_id
        if worker.drain_deadline_unix_ms is not None:  # it drains: nobody else has one
            self.deadlines.set(DeadlineKind.DRAIN, worker.worker_id, worker.drain_deadline_unix_ms)
        else:
            self.deadlines.cancel(DeadlineKind.DRAIN, worker.worker_id)
        if worker.liveness is not Liveness.LIVE:
            self.deadlines.cancel(DeadlineKind.HEARTBEAT, worker.worker_id)
        request = worker.release_request
        if request is not None:
            self.worker_by_release[request.release_id] = worker.worker_id
            due_unix_ms = request.expires_at_unix_ms
            self.deadlines.set(DeadlineKind.RELEASE, worker.worker_id, due_unix_ms)
        self._look_at(worker.worker_id)

    def _unindex(self, worker_id: str) -> None:
        old = self.workers.get(worker_id)
        if old is None:
            return
        self.worker_by_identity.pop(old.evidence_identity, None)
        for proof in (old.proof, old.candidate):
            if proof is not None:
                self.worker_by_key.pop(proof.key_sha256, None)
        if old.release_request is not None:
            self.worker_by_release.pop(old.release_request.release_id, None)
            self.deadlines.cancel(DeadlineKind.RELEASE, worker_id)

    def _forget_worker(self, worker_id: str) -> None:
        self._unindex(worker_id)
        self.workers.pop(worker_id, None)
        self.beats.pop(worker_id, None)
        self.deadlines.cancel(DeadlineKind.HEARTBEAT, worker_id)
        self.deadlines.cancel(DeadlineKind.DRAIN, worker_id)
        self._look_at(worker_id)

    def _put_lease(self, lease: WorkerLease) -> None:
        known = lease.lease_id in self.leases
        if lease.status.live:
            self.leases[lease.lease_id] = lease
            self.lease_by_worker[lease.worker_id] = lease.lease_id
            self.lease_by_run[lease.run_id] = lease.lease_id
            self.deadlines.set(DeadlineKind.LEASE, lease.lease_id, lease.expires_at_unix_ms)
            self.leases_per_principal[lease.principal] += 0 if known else 1
            self.rules.take_lease(lease, 0 if known else 1)
        elif known:
            del self.leases[lease.lease_id]
            del self.lease_by_worker[lease.worker_id]
            del self.lease_by_run[lease.run_id]
            self.deadlines.cancel(DeadlineKind.LEASE, lease.lease_id)
            self.leases_per_principal[lease.principal] -= 1
            self.rules.take_lease(lease, -1)
            if not self.leases_per_principal[lease.principal]:
                del self.leases_per_principal[lease.principal]

    def _put_grant(self, grant: WorkerApprovalGrant) -> None:
        usable = grant.usable(self.high_water_unix_ms)
        self.rules.take_grant(grant, usable)
        if usable:
            self.grants[grant.grant_id] = grant
            self.grants_by_run.setdefault(grant.run_id, {})[grant.grant_id] = None
            self.deadlines.set(DeadlineKind.GRANT, grant.grant_id, grant.expires_at_unix_ms)
        else:
            self._forget_grant(grant.grant_id)

    def _forget_grant(self, grant_id: str) -> None:
        """Stop holding a grant that can no longer be used; the store still lists it."""
        grant = self.grants.pop(grant_id, None)
        self.deadlines.cancel(DeadlineKind.GRANT, grant_id)
        if grant is not None:
            self.rules.forget_grant(grant)
            of_run = self.grants_by_run[grant.run_id]
            del of_run[grant_id]
            if not of_run:
                del self.grants_by_run[grant.run_id]

    def _hear(self, word: PolicyWord) -> None:
        """The latest word of a proxy counts: a receipt may come after a heartbeat that is newer."""
        known = self.policy_words.get(word.proxy_id)
        if known is None or known.at_unix_ms <= word.at_unix_ms:
            self.policy_words[word.proxy_id] = word

    def _beat(self, beat: Beat) -> None:
        self.beats[beat.worker_id] = beat
        self.deadlines.set(DeadlineKind.HEARTBEAT, beat.worker_id, beat.deadline_unix_ms + 1)
        self._look_at(beat.worker_id)

    def _put_offer(self, offer: Offer) -> None:
        self.placing.put(offer)
        if offer.offer_id in self.placing.offers:
            self.deadlines.set(DeadlineKind.OFFER, offer.offer_id, offer.expires_at_unix_ms)
        else:
            self.deadlines.cancel(DeadlineKind.OFFER, offer.offer_id)
        self._look_at(offer.worker_id)

    def _look_at(self, worker_id: str) -> None:
        """Keep right whether this worker waits, and where: until its evidence is over."""
        worker, beat = self.workers.get(worker_id), self.beats.get(worker_id)
        if (
            worker is not None
            and beat is not None
            and beat.waits
            and idle(worker)
            and worker_id not in self.placing.offer_by_worker
            and worker.proof.attested_until_unix_ms > self.high_water_unix_ms
        ):
            kind = (worker.proof.capabilities, worker.proof.binding_level)
            self.placing.enter(worker_id, kind, score(worker))
            due_unix_ms = worker.proof.attested_until_unix_ms
            self.deadlines.set(DeadlineKind.WAITING, worker_id, due_unix_ms)
        else:
            self.placing.leave(worker_id)
            self.deadlines.cancel(DeadlineKind.WAITING, worker_id)
