"""What a restored ledger becomes: nobody freer than before, nothing that a time bounds goes on.

Input is the ledger of the snapshot and, if the state that it replaces could be read, whom that one
holds and trusts: its confined workers come as they are there, whoever of the snapshot has a key, an
identity or an id of theirs is quarantined too, what it trusts no more is not trusted again, and the
evidence and keys that it demanded are demanded still. If it could not be read, everybody is
quarantined unless the operator says that workers may return. Pure. Times: Unix ms.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from palyra_fleet.ledger.decision import (
    Decision,
    Detail,
    EnrolledKey,
    EventReason,
    FleetFreeze,
    ReferenceValue,
    Tombstone,
    TombstoneKind,
    WithdrawnReference,
)
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Admission, EvidenceDemand, WorkerRecord
from palyra_fleet.ledger.lost_time import end_all, with_evidence_over
from palyra_fleet.ledger.reattesting import log_demand, put_demand, stricter_of
from palyra_fleet.ledger.state import LedgerState

UNKNOWN = "restored without the state that followed"
RETIRED = "its key was retired, or to be, in the state that was replaced"
HELD = "quarantined in the state that was replaced"


@dataclass(frozen=True, slots=True)
class Confined:
    """Whom a ledger holds: the quarantined and banned, what is remembered for ever; whom it trusts,
    and what it took back; what is frozen; of whom new evidence is demanded."""

    workers: tuple[WorkerRecord, ...]
    tombstones: frozenset[Tombstone]
    enrolled: tuple[EnrolledKey, ...] = ()
    references: frozenset[ReferenceValue] = frozenset()
    freeze: FleetFreeze = field(default_factory=lambda: FleetFreeze(False, 0))
    demanded: tuple[tuple[WorkerRecord, EvidenceDemand], ...] = ()

    @classmethod
    def of(cls, state: LedgerState) -> "Confined":
        workers = tuple(state.workers.values())
        held = tuple(worker for worker in workers if worker.confined)
        return cls(
            held,
            frozenset(state.tombstones),
            tuple(state.enrolled.values()),
            frozenset(state.references),
            state.freeze,
            tuple((one, one.demand) for one in workers if one.demand is not None),
        )


def restored(
    state: LedgerState,
    held: Confined | None,
    workers_may_return: bool,
    detail: Detail,
    now_unix_ms: int,
) -> Decision:
    """`held` is None where the state that followed the snapshot could not be read. Where it was not
    read to its end either, nobody returns unless `workers_may_return`."""
    draft = Draft(state, now_unix_ms)
    end_all(draft, "a snapshot was restored")
    if held is not None:
        _hold(draft, held)
    if not workers_may_return:
        for worker_id in state.workers:
            if not draft.worker(worker_id).confined:
                draft.confine(worker_id, EventReason.QUARANTINED_BY_RESTORE, UNKNOWN, None)
    draft.event(EventReason.RESTORED, None, None, detail)
    return draft.finish()


def _hold(draft: Draft, held: Confined) -> None:
    for tombstone in held.tombstones - draft.state.tombstones:
        draft.put(tombstone)
    if held.freeze.frozen:
        egress = held.freeze.egress or draft.state.freeze.egress
        by = held.freeze.by or draft.state.freeze.by
        draft.put(FleetFreeze(True, draft.now_unix_ms, egress, by))
    for key in held.enrolled:
        _trust_no_more_than(draft, key)
    for value in sorted(draft.state.references - held.references, key=str):
        draft.put(WithdrawnReference(value.digest_field, value.digest_sha256))
    for worker in held.workers:
        for other_id in sorted(_who_shares(draft.state, worker)):
            _confine(draft, other_id)
        if worker.worker_id in draft.state.workers:
            _take_over(draft, worker)
        elif _who_shares(draft.state, worker):
            draft.put(Tombstone(TombstoneKind.WORKER, worker.worker_id))
            if worker.evidence_identity not in draft.state.worker_by_identity:
                draft.put(Tombstone(TombstoneKind.IDENTITY, worker.evidence_identity))
        else:
            over = with_evidence_over(worker, draft.now_unix_ms)
            draft.put_worker(replace(over, release_request=None))
            draft.event(EventReason.QUARANTINED_BY_RESTORE, worker.worker_id, None, {"why": HELD})
    _demand_again(draft, held)


def _demand_again(draft: Draft, held: Confined) -> None:
    """What was demanded since the snapshot still is, and a key that was retired since stays so. The
    fleet's time begins anew, and with it the time that evidence must be begun after."""
    now = draft.now_unix_ms
    demanded = {worker.worker_id: demand for worker, demand in held.demanded}
    doubted = set(_doubted_keys(draft, held))
    for tombstone in sorted(doubted, key=str):
        draft.put(tombstone)
    retired = held.tombstones | doubted
    for worker_id in draft.state.workers:
        worker = draft.worker(worker_id)
        if worker.confined:
            continue
        demand = stricter_of(worker.demand, demanded.get(worker_id))
        if Tombstone(TombstoneKind.KEY, worker.proof.key_sha256) in retired:
            demand = stricter_of(demand, EvidenceDemand(draft.actor, RETIRED, True, now, now))
        if demand is None:
            continue
        demand = replace(demand, asked_at_unix_ms=min(demand.asked_at_unix_ms, now))
        if demand != worker.demand:
            put_demand(draft, worker, demand)
            log_demand(draft, worker, demand)


def _doubted_keys(draft: Draft, held: Confined) -> Iterator[Tombstone]:
    """Keys in whose place others were demanded, of workers that the snapshot does not know, or not
    by that key: the demand upon the worker would let them in."""
    for worker, demand in held.demanded:
        mine = draft.state.workers.get(worker.worker_id)
        same = mine is not None and mine.proof.key_sha256 == worker.proof.key_sha256
        if demand.new_key and not same:
            yield Tombstone(TombstoneKind.KEY, worker.proof.key_sha256)


def _trust_no_more_than(draft: Draft, key: EnrolledKey) -> None:
    """Taken back since stays so; a proxy's evidence goes on where it had come to."""
    known = draft.state.enrolled.get((key.kind, key.name))
    if known is None:
        taken = any(one.public_key == key.public_key for one in draft.state.enrolled.values())
        if key.revoked and not taken:
            draft.put(key)
    elif known.public_key == key.public_key and not known.revoked:
        further = key if key.seq >= known.seq else known
        draft.put(replace(further, revoked_at_unix_ms=key.revoked_at_unix_ms))


def _who_shares(state: LedgerState, worker: WorkerRecord) -> set[str]:
    """Workers of the snapshot, other than this one, with its key or its identity."""
    keys = {proof.key_sha256 for proof in (worker.proof, worker.candidate) if proof is not None}
    found = {state.worker_by_identity.get(worker.evidence_identity)}
    found |= {state.worker_by_key.get(key) for key in keys}
    return {worker_id for worker_id in found if worker_id not in {None, worker.worker_id}}


def _confine(draft: Draft, worker_id: str) -> None:
    if not draft.worker(worker_id).confined:
        draft.confine(worker_id, EventReason.QUARANTINED_BY_RESTORE, HELD, None)


def _take_over(draft: Draft, worker: WorkerRecord) -> None:
    """Whichever is stricter; a ban beats a quarantine, and the newer quarantine is the one kept."""
    _confine(draft, worker.worker_id)
    mine = draft.worker(worker.worker_id)
    banned = Admission.BANNED in {worker.admission, mine.admission}
    if worker.evidence_identity not in draft.state.worker_by_identity:
        # the record keeps the identity of the snapshot: the other would be free under another id
        draft.put(Tombstone(TombstoneKind.IDENTITY, worker.evidence_identity))
    for proof in (worker.proof, worker.candidate):
        if proof is not None and proof.key_sha256 != mine.proof.key_sha256:
            draft.put(Tombstone(TombstoneKind.KEY, proof.key_sha256))
    draft.put_worker(
        replace(
            mine,
            admission=Admission.BANNED if banned else Admission.QUARANTINED,
            quarantine=worker.quarantine,
            candidate=None,
            attestation_epoch=max(mine.attestation_epoch, worker.attestation_epoch),
            session_epoch=max(mine.session_epoch, worker.session_epoch),
            last_fence=max(mine.last_fence, worker.last_fence),
        )
    )
