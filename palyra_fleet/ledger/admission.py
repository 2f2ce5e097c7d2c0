"""Who is in the fleet: registration, quarantine, ban, evict; the way back is `releasing`. Pure.

Inputs are verified attestations and operators' commands; outputs are decisions or refusals. A ban
leaves tombstones on worker id, key and evidence identity. A registration counts as the new
session's first heartbeat. With the same key it keeps a live lease (the worker proved itself again);
with a new key it is a new process, and the lease of the old one ends. One that `continues` a
session is that session proving itself again: it needs the session's own key, or a key that the own
one signed for, so an older session cannot take the worker back, and it cleans up nothing that ended
meanwhile. What an operator demanded (`reattesting`) is met here. Source: specification 20, section
1.
"""

from dataclasses import replace

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.leases.records import LeaseStatus
from palyra_fleet.ledger.decision import (
    Beat,
    Decision,
    Detail,
    EventReason,
    EvictedWorker,
    PolicyWord,
    Tombstone,
    TombstoneKind,
)
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import (
    Admission,
    Eligibility,
    Liveness,
    Proof,
    Work,
    WorkerRecord,
    ends_of,
)
from palyra_fleet.ledger.guards import find_worker
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.reattesting import met, unmet
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal, worker_already_registered, worker_unknown
from palyra_fleet.wire.labels import written

LAUNCHER_ACTOR = "attestation"


def register(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    result: AttestationResult,
    continues: bool,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Admit a worker, renew its evidence, or keep it as the candidate of a quarantined one."""
    refusal = _registration_refusal(state, policy, result, now_unix_ms) or (
        _continuation_refusal(state, result) if continues else None
    )
    if refusal is not None:
        return refusal
    draft = Draft(state, now_unix_ms, LAUNCHER_ACTOR)
    worker = state.workers.get(result.worker_id)
    epoch = 1 if worker is None else worker.attestation_epoch + 1
    proof = _proof(policy, result, epoch, now_unix_ms)
    if worker is None:
        draft.put_worker(_new_worker(result, proof))
        reason = EventReason.REGISTERED
    elif worker.confined:
        draft.put_worker(
            replace(
                worker,
                candidate=proof,
                attestation_epoch=epoch,
                session_epoch=worker.session_epoch + 1,
                liveness=Liveness.LIVE,
            )
        )
        reason = EventReason.CANDIDATE_ATTESTED
    else:
        _renew_evidence(draft, worker, proof, continues)
        reason = EventReason.REATTESTED if continues else EventReason.REGISTERED
    if not continues:
        draft.end_offer_to(result.worker_id, "a new session began")
    known = len(state.workers) + (worker is None)
    last = state.beats.get(result.worker_id)
    waits = continues and last is not None and last.waits
    deadline_unix_ms = now_unix_ms + policy.heartbeat_timeout_of(known)
    draft.beat(Beat(result.worker_id, 0, deadline_unix_ms, waits))
    draft.hear(
        PolicyWord(result.binding_proxy_id, result.binding_policy_digest, result.bound_at_unix_ms)
    )
    detail: Detail = {
        **met(worker),
        "attestation_epoch": epoch,
        "key_sha256": result.key_sha256,
        "evidence_kind": result.evidence_kind,
        "evidence_identity": result.evidence_identity,
        "evidence_sha256": result.evidence_sha256,
        "binding_proxy_id": result.binding_proxy_id,
        "binding_level": result.binding_level.name.lower(),
        "binding_policy_digest": result.binding_policy_digest,
    }
    if result.device_id is not None:
        detail = {**detail, "device_id": result.device_id}
    if worker is None and result.labels:
        detail = {**detail, "labels": written(result.labels)}
    draft.event(reason, result.worker_id, None, detail)
    return draft.finish()


def _registration_refusal(
    state: LedgerState, policy: WorkerFleetPolicy, result: AttestationResult, now_unix_ms: int
) -> Refusal | None:
    marks = (
        Tombstone(TombstoneKind.WORKER, result.worker_id),
        Tombstone(TombstoneKind.KEY, result.key_sha256),
        Tombstone(TombstoneKind.IDENTITY, result.evidence_identity),
    )
    for mark in marks:
        if mark in state.tombstones:
            itself = mark.kind is TombstoneKind.WORKER
            banned = "this worker" if itself else f"this worker's {mark.kind}"
            return Refusal(FleetReason.WORKER_BANNED, f"{banned} is banned")
    if now_unix_ms >= min((result.evidence_until_unix_ms, *ends_of(result.known_until_unix_ms))):
        return Refusal(FleetReason.ATTESTATION_EXPIRED, "worker attestation has expired")
    if result.binding_level < policy.least_binding_level:
        text = (
            f"worker attestation has the egress proxy binding {result.binding_level.name.lower()};"
            f" this fleet asks for {policy.least_binding_level.name.lower()}"
        )
        return Refusal(FleetReason.MISSING_BINDING, text)
    for owner in (
        state.worker_by_identity.get(result.evidence_identity),
        state.worker_by_key.get(result.key_sha256),
    ):
        if owner is not None and owner != result.worker_id:
            return worker_already_registered(owner)
    known = state.workers.get(result.worker_id)
    if known is None and len(state.workers) >= policy.max_workers:
        text = f"the fleet holds {policy.max_workers} workers, as many as it may"
        return Refusal(FleetReason.FLEET_FULL, text)
    if known is not None and known.evidence_identity != result.evidence_identity:
        return worker_already_registered(result.worker_id)
    if known is None:
        return None
    return unmet(known, result) or _credential_refusal(known, result)


def _credential_refusal(worker: WorkerRecord, result: AttestationResult) -> Refusal | None:
    """A bearer credential admits one key. What was issued no later than the last one that was
    accepted may have been stolen since, and admits no other key."""
    last = worker.candidate or worker.proof
    issued, before = result.credential_issued_at_unix_ms, last.credential_issued_at_unix_ms
    if issued is None or before is None or issued > before or result.key_sha256 == last.key_sha256:
        return None
    text = "this credential, or a later one, has admitted another key of this worker"
    return Refusal(FleetReason.KEY_MISMATCH, text)


def _continuation_refusal(state: LedgerState, result: AttestationResult) -> Refusal | None:
    """Only the worker's current key goes on, or the next one that it signed for: whoever registered
    last holds the worker. A quarantined worker's next key begins a new session."""
    worker = find_worker(state, result.worker_id)
    if isinstance(worker, Refusal):
        return worker
    current = (worker.candidate or worker.proof).key_sha256
    if result.key_sha256 == current:
        return None
    if result.succeeds_key_sha256 == current and not worker.confined:
        return None
    text = f"worker '{result.worker_id}' has a newer session with another key"
    return Refusal(FleetReason.SESSION_STALE, text)


def _proof(
    policy: WorkerFleetPolicy, result: AttestationResult, epoch: int, now_unix_ms: int
) -> Proof:
    until = min(
        result.evidence_until_unix_ms,
        now_unix_ms + policy.attestation_max_ms,
        result.bound_at_unix_ms + policy.binding_max_age_ms,
        *ends_of(result.known_until_unix_ms),
    )
    return Proof(
        public_key=result.public_key,
        key_sha256=result.key_sha256,
        artifact_digest_sha256=result.artifact_digest_sha256,
        capabilities=result.supported_capabilities & policy.trusted_capabilities,
        attested_until_unix_ms=until,
        binding_proxy_id=result.binding_proxy_id,
        bound_at_unix_ms=result.bound_at_unix_ms,
        attestation_epoch=epoch,
        image_digest_sha256=result.image_digest_sha256,
        build_digest_sha256=result.build_digest_sha256,
        binding_level=result.binding_level,
        launcher_sha256=result.launcher_sha256,
        device_id=result.device_id,
        binding_policy_digest=result.binding_policy_digest,
        evidence_kind=result.evidence_kind,
        measured=result.measured,
        credential_issued_at_unix_ms=result.credential_issued_at_unix_ms,
        known_until_unix_ms=result.known_until_unix_ms,
    )


def _new_worker(result: AttestationResult, proof: Proof) -> WorkerRecord:
    return WorkerRecord(
        worker_id=result.worker_id,
        evidence_identity=result.evidence_identity,
        proof=proof,
        admission=Admission.ACTIVE,
        eligibility=Eligibility.ELIGIBLE,
        liveness=Liveness.LIVE,
        work=Work.IDLE,
        attestation_epoch=1,
        session_epoch=1,
        labels=result.labels,
    )


def _renew_evidence(draft: Draft, worker: WorkerRecord, proof: Proof, continues: bool) -> None:
    """New evidence. A lease that is kept never outlives it; a run that was orphaned is forgiven to
    a new session only, since the old one may not have ended its processes yet."""
    lease = draft.live_lease_of(worker.worker_id)
    if lease is not None and proof.key_sha256 != worker.proof.key_sha256 and not continues:
        draft.end_lease(
            lease, LeaseStatus.REVOKED, EventReason.LEASE_REVOKED, "registered with a new key"
        )
        lease = None
    draft.shorten_lease_of(worker.worker_id, proof.attested_until_unix_ms)
    if worker.demand is not None and worker.demand.new_key:
        draft.put(Tombstone(TombstoneKind.KEY, worker.proof.key_sha256))
    worker = draft.worker(worker.worker_id)
    unclean = {Work.FAILED, Work.ORPHANED} if continues else {Work.FAILED}
    clean = lease is None and worker.work not in unclean
    draft.put_worker(
        replace(
            worker,
            proof=proof,
            attestation_epoch=proof.attestation_epoch,
            session_epoch=worker.session_epoch + 1,
            liveness=Liveness.LIVE,
            work=Work.IDLE if clean else worker.work,
            cleanup_verified=clean,
            demand=None,
        )
    )


def quarantine(
    state: LedgerState,
    worker_id: str,
    actor: str,
    reason: EventReason,
    why: str,
    evidence_sha256: str | None,
    decision_id: str | None,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Confine a worker. Once more while confined discards the candidate evidence."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    draft = Draft(state, now_unix_ms, actor)
    draft.confine(worker_id, reason, why, evidence_sha256, decision_id)
    return draft.finish()


def reverify(
    state: LedgerState, worker_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """Clear failed work after newer evidence. Touches no other fact; lifts no quarantine."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    if worker.confined:
        text = f"worker '{worker_id}' is quarantined; reverifying does not release it"
        return Refusal(FleetReason.WORKER_QUARANTINED, text)
    if worker.work is not Work.FAILED:
        return Refusal(FleetReason.COMMAND_INVALID, f"worker '{worker_id}' has no failed work")
    if worker.proof.attestation_epoch <= worker.failed_at_attestation_epoch:
        text = f"worker '{worker_id}' must attest again before it is reverified"
        return Refusal(FleetReason.REATTEST_FIRST, text)
    draft = Draft(state, now_unix_ms, actor)
    draft.put_worker(replace(worker, work=Work.IDLE, cleanup_verified=True))
    draft.event(EventReason.REVERIFIED, worker_id, None, {"why": why})
    return draft.finish()


def ban(
    state: LedgerState, worker_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """Final. Tombstones keep the id, every current key and the identity out for ever."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    draft = Draft(state, now_unix_ms, actor)
    draft.confine(worker_id, EventReason.BANNED, why, None)
    draft.put_worker(replace(draft.worker(worker_id), admission=Admission.BANNED))
    draft.put(Tombstone(TombstoneKind.WORKER, worker_id))
    draft.put(Tombstone(TombstoneKind.IDENTITY, worker.evidence_identity))
    for proof in (worker.proof, worker.candidate):
        if proof is not None:
            draft.put(Tombstone(TombstoneKind.KEY, proof.key_sha256))
    return draft.finish()


def evict(
    state: LedgerState, worker_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """Forget a worker that is neither confined nor leased. What was demanded of it still holds for
    whoever comes as this worker: the key that was to be replaced is retired. Nonces from before the
    demand are the caller's to forget."""
    worker = state.workers.get(worker_id)
    if worker is None:
        return worker_unknown(worker_id)
    if worker.admission is Admission.BANNED:
        return Refusal(FleetReason.WORKER_BANNED, f"worker '{worker_id}' is banned, for ever")
    if worker.confined:
        text = f"worker '{worker_id}' is quarantined and cannot be evicted"
        return Refusal(FleetReason.WORKER_QUARANTINED, text)
    if state.live_lease_of(worker_id) is not None:
        text = f"worker '{worker_id}' holds a lease and cannot be evicted"
        return Refusal(FleetReason.WORKER_LEASED, text)
    draft = Draft(state, now_unix_ms, actor)
    draft.put(EvictedWorker(worker_id))
    detail: Detail = {"why": why}
    if worker.demand is not None and worker.demand.new_key:
        draft.put(Tombstone(TombstoneKind.KEY, worker.proof.key_sha256))
        detail = {**detail, "retired_key_sha256": worker.proof.key_sha256}
    draft.event(EventReason.EVICTED, worker_id, None, detail)
    return draft.finish()
