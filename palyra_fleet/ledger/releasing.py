"""The way out of quarantine: newer evidence, a new key, and an operator or, where set, two. Pure.

With `two_person_release` one principal asks and another approves; asking is possible without it,
too. A request speaks of the quarantine and the evidence as they are when it is made: what changes
either voids it (`Draft.finish`), and so does further evidence of a violation (`void_release`), so
that nobody approves what nobody looked at. The same principal never does both, whichever token it
comes with. A restart keeps requests, since they are part of the worker's record. Times: Unix ms.
"""

from dataclasses import replace

from palyra_fleet.ledger.decision import (
    Decision,
    Detail,
    EventReason,
    Tombstone,
    TombstoneKind,
)
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import (
    Admission,
    Proof,
    Quarantine,
    ReleaseRequest,
    Work,
    WorkerRecord,
)
from palyra_fleet.ledger.guards import find_worker
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal


def release(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    worker_id: str,
    actor: str,
    why: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Let a quarantined worker back. The operator's reason acknowledges the evidence by digest."""
    grounds = _grounds(state, worker_id, now_unix_ms)
    if isinstance(grounds, Refusal):
        return grounds
    if policy.two_person_release:
        text = (
            f"this fleet releases nobody on one person's word: ask for the release of worker "
            f"'{worker_id}', and have another person approve it"
        )
        return Refusal(FleetReason.RELEASE_NEEDS_SECOND, text)
    draft = Draft(state, now_unix_ms, actor)
    _let_back(draft, grounds, why)
    return draft.finish()


def request_release(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    worker_id: str,
    release_id: str,
    actor: str,
    why: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Ask for a release that another person is to approve. It takes all that a release takes."""
    grounds = _grounds(state, worker_id, now_unix_ms)
    if isinstance(grounds, Refusal):
        return grounds
    worker, confined, candidate = grounds
    before = worker.release_request
    if before is not None and now_unix_ms < before.expires_at_unix_ms:
        text = f"'{before.asked_by}' asks for the release of worker '{worker_id}' already"
        return Refusal(FleetReason.RELEASE_REQUESTED, text)
    request = ReleaseRequest(
        release_id=release_id,
        asked_by=actor,
        why=why,
        asked_at_unix_ms=now_unix_ms,
        expires_at_unix_ms=min(
            now_unix_ms + policy.release_request_ms, candidate.attested_until_unix_ms
        ),
        quarantine=confined,
        attestation_epoch=candidate.attestation_epoch,
        key_sha256=candidate.key_sha256,
    )
    draft = Draft(state, now_unix_ms, actor)
    draft.put_worker(replace(worker, release_request=request))
    detail: Detail = {
        "release_id": release_id,
        "why": why,
        "expires_at_unix_ms": request.expires_at_unix_ms,
        "quarantine_evidence_sha256": confined.evidence_sha256,
        "attestation_epoch": candidate.attestation_epoch,
        "key_sha256": candidate.key_sha256,
    }
    draft.event(EventReason.RELEASE_REQUESTED, worker_id, None, detail)
    return draft.finish()


def approve_release(
    state: LedgerState, release_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """Let the worker back that the request speaks of. `actor` is not who asked."""
    found = _find_open(state, release_id, now_unix_ms)
    if isinstance(found, Refusal):
        return found
    worker, request = found
    if actor == request.asked_by:
        text = f"'{actor}' asked for this release; another person must approve it"
        return Refusal(FleetReason.RELEASE_SAME_PERSON, text)
    grounds = _grounds(state, worker.worker_id, now_unix_ms)
    if isinstance(grounds, Refusal):
        return grounds
    draft = Draft(state, now_unix_ms, actor)
    asked: Detail = {"asked_why": request.why}
    draft.end_release_request(worker, EventReason.RELEASE_APPROVED, why, asked)
    _let_back(draft, grounds, why)
    return draft.finish()


def withdraw_release(
    state: LedgerState, release_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """The release is asked for no more: by who asked, or by anybody who stops things."""
    found = _find_open(state, release_id, now_unix_ms)
    if isinstance(found, Refusal):
        return found
    draft = Draft(state, now_unix_ms, actor)
    draft.end_release_request(found[0], EventReason.RELEASE_WITHDRAWN, why)
    return draft.finish()


def void_release(
    state: LedgerState, worker_id: str, actor: str, why: str, now_unix_ms: int
) -> Decision:
    """What was asked for this worker, if anything was, is not as it was looked at."""
    draft = Draft(state, now_unix_ms, actor)
    worker = state.workers.get(worker_id)
    if worker is not None:
        draft.end_release_request(worker, EventReason.RELEASE_VOIDED, why)
    return draft.finish()


def _find_open(
    state: LedgerState, release_id: str, now_unix_ms: int
) -> tuple[WorkerRecord, ReleaseRequest] | Refusal:
    worker_id = state.worker_by_release.get(release_id)
    worker = None if worker_id is None else state.workers[worker_id]
    request = None if worker is None else worker.release_request
    if worker is None or request is None or now_unix_ms >= request.expires_at_unix_ms:
        text = (
            f"no request '{release_id}' is open: it was answered or withdrawn, its time is over, "
            "or the worker is not as it was"
        )
        return Refusal(FleetReason.RELEASE_UNKNOWN, text)
    return worker, request


def _grounds(
    state: LedgerState, worker_id: str, now_unix_ms: int
) -> tuple[WorkerRecord, Quarantine, Proof] | Refusal:
    """The worker, its quarantine, and the newer evidence with a new key on which it may come back:
    what every way out of quarantine asks for."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    confined = worker.quarantine
    if confined is None:
        text = f"worker '{worker_id}' is not quarantined"
        return Refusal(FleetReason.NOT_QUARANTINED, text)
    candidate = worker.candidate
    if (
        candidate is None
        or candidate.attestation_epoch <= confined.attestation_epoch
        or now_unix_ms >= candidate.attested_until_unix_ms
    ):
        text = f"worker '{worker_id}' has shown no valid evidence newer than its quarantine"
        return Refusal(FleetReason.RELEASE_NEEDS_EVIDENCE, text)
    if candidate.key_sha256 in {confined.key_sha256, worker.proof.key_sha256}:
        text = f"worker '{worker_id}' must attest with a new key before it is released"
        return Refusal(FleetReason.RELEASE_NEEDS_KEY, text)
    return worker, confined, candidate


def _let_back(draft: Draft, grounds: tuple[WorkerRecord, Quarantine, Proof], why: str) -> None:
    before, confined, candidate = grounds
    worker = draft.worker(before.worker_id)
    failed = worker.work is Work.FAILED
    draft.put_worker(
        replace(
            worker,
            admission=Admission.ACTIVE,
            proof=candidate,
            candidate=None,
            quarantine=None,
            work=Work.FAILED if failed else Work.IDLE,
            cleanup_verified=not failed,
        )
    )
    for key in sorted({confined.key_sha256, worker.proof.key_sha256}):
        draft.put(Tombstone(TombstoneKind.KEY, key))
    detail: Detail = {"why": why, "acknowledged_evidence_sha256": confined.evidence_sha256}
    draft.event(EventReason.RELEASED, worker.worker_id, None, detail)
