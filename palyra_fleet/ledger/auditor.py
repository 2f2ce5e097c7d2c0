"""What must be true of the ledger at every moment, said a second time and independently.

The commands keep these invariants by how they decide; the auditor looks at what is there. It is
given the live ledger (all of it, or one worker after a command, which costs no scan) and answers
sentences about what is wrong; none is good. Numbers are those of specification 20, section 1. Pure.
Times: Unix ms.
"""

from collections import Counter
from collections.abc import Iterator

from palyra_fleet.leases.records import LeaseStatus, WorkerLease
from palyra_fleet.ledger.deadlines import DeadlineKind
from palyra_fleet.ledger.decision import Tombstone, TombstoneKind
from palyra_fleet.ledger.facts import (
    Admission,
    Eligibility,
    Liveness,
    Proof,
    Work,
    WorkerRecord,
    ends_of,
    idle,
    why_void,
)
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.wire.labels import MAX_LABELS, sorted_labels

_EVER = 2**63
_WORK_OF = {LeaseStatus.ASSIGNED: Work.ASSIGNED, LeaseStatus.BUSY: Work.BUSY}


def audit(state: LedgerState, policy: WorkerFleetPolicy) -> tuple[str, ...]:
    """All of the ledger. O(all)."""
    found = [*_counts(state, policy), *_grants(state), *_rules(state)]
    for worker_id in state.workers:
        found += audit_worker(state, policy, worker_id)
    for lease in state.leases.values():
        if lease.worker_id not in state.workers:
            found.append(f"lease {lease.lease_id} is nobody's")
    return tuple(found)


def audit_worker(state: LedgerState, policy: WorkerFleetPolicy, worker_id: str) -> tuple[str, ...]:
    """One worker and what it holds. O(1)."""
    worker = state.workers.get(worker_id)
    if worker is None:
        held = worker_id in state.lease_by_worker
        return (f"worker {worker_id} is forgotten and holds a lease",) if held else ()
    found = [*_identity(state, worker), *_standing(state, worker), *_liveness(state, worker)]
    found += _request(state, worker)
    found += _demand(worker)
    found += _placing(state, worker)
    labels = dict(worker.labels)
    if sorted_labels(labels) != worker.labels or len(labels) > MAX_LABELS:
        found.append(f"worker {worker_id} has labels that are too many, or not in order")
    lease = state.live_lease_of(worker_id)
    if lease is None:
        if worker.work in {Work.ASSIGNED, Work.BUSY}:
            found.append(f"worker {worker_id} works without a lease")
    else:
        found += _lease(state, policy, worker, lease)
    return tuple(found)


def _counts(state: LedgerState, policy: WorkerFleetPolicy) -> Iterator[str]:
    live = len(state.leases)
    if not live == len(state.lease_by_worker) == len(state.lease_by_run):
        yield "1: a worker or a run has two live leases, or an index is wrong"
    if state.leases_per_principal != Counter(lease.principal for lease in state.leases.values()):
        yield "the leases per principal are counted wrong"
    for lease_id in state.leases:
        if state.leases[lease_id].lease_id != lease_id:
            yield f"lease {lease_id} is filed under another id"
    requests = sum(worker.release_request is not None for worker in state.workers.values())
    if len(state.worker_by_release) != requests:
        yield "the requests for releases are filed wrong"
    keys = sum(1 + (worker.candidate is not None) for worker in state.workers.values())
    if len(state.worker_by_identity) != len(state.workers) or len(state.worker_by_key) > keys:
        yield "an index knows workers that are not there"
    placing = state.placing
    if not len(placing.offers) == len(placing.offer_by_worker) == len(placing.offer_by_run):
        yield "1: a worker or a run has two offers, or an index is wrong"
    if not placing.offer_by_worker.keys() <= state.workers.keys():
        yield "an offer is nobody's"
    if live > policy.max_leases or max(state.leases_per_principal.values(), default=0) > (
        policy.leases_per_principal
    ):
        yield "more leases are live than the policy gives"


def _grants(state: LedgerState) -> Iterator[str]:
    of_runs = sum(len(grants) for grants in state.grants_by_run.values())
    if of_runs != len(state.grants):
        yield "the grants of runs are filed wrong"
    spent = {lease.grant_id for lease in state.leases.values()}
    for grant_id, grant in state.grants.items():
        if grant_id in spent or grant.withdrawn or grant.uses >= grant.max_uses:
            yield f"1: grant {grant_id} is spent and could be spent again"
        if grant_id not in state.grants_by_run.get(grant.run_id, ()):
            yield f"grant {grant_id} is not filed under its run"


def _rules(state: LedgerState) -> Iterator[str]:
    live = Counter(one.rule_id for one in state.leases.values() if one.rule_id is not None)
    unused = Counter(one.rule.rule_id for one in state.grants.values() if one.rule is not None)
    counted = Counter({rule: len(grants) for rule, grants in state.rules.unused.items()})
    if state.rules.leases != live or counted != unused:
        yield "what approval rules have out is counted wrong"


def _proofs(worker: WorkerRecord) -> tuple[Proof, ...]:
    return (worker.proof,) if worker.candidate is None else (worker.proof, worker.candidate)


def _identity(state: LedgerState, worker: WorkerRecord) -> Iterator[str]:
    name = f"worker {worker.worker_id}"
    if state.worker_by_identity.get(worker.evidence_identity) != worker.worker_id:
        yield f"{name} is not found by its identity"
    for proof in _proofs(worker):
        if state.worker_by_key.get(proof.key_sha256) != worker.worker_id:
            yield f"{name} is not found by its key"
        if proof.attestation_epoch > worker.attestation_epoch:
            yield f"{name} stands on evidence from the future"
        if proof.attested_until_unix_ms > min(ends_of(proof.known_until_unix_ms), default=_EVER):
            yield f"5: {name} is attested for longer than what it is known by"


def _standing(state: LedgerState, worker: WorkerRecord) -> Iterator[str]:
    name = f"worker {worker.worker_id}"
    marks = {
        Tombstone(TombstoneKind.WORKER, worker.worker_id),
        Tombstone(TombstoneKind.IDENTITY, worker.evidence_identity),
        Tombstone(TombstoneKind.KEY, worker.proof.key_sha256),
    }
    if worker.admission is Admission.BANNED and not marks <= state.tombstones:
        yield f"3: {name} is banned and could come back"
    found = marks & state.tombstones
    if worker.demand is not None and worker.demand.new_key:
        found = {mark for mark in found if mark.kind is not TombstoneKind.KEY}
    if worker.admission is Admission.ACTIVE and found:
        yield f"3: {name} is active under a tombstone"
    if (worker.quarantine is not None) != worker.confined:
        yield f"4: {name} is held without a reason, or has one and is not held"
    if worker.candidate is not None and not worker.confined:
        yield f"4: {name} has candidate evidence and is not held"
    if worker.confined and worker.worker_id in state.lease_by_worker:
        yield f"3: {name} is held and has a live lease"
    draining = worker.eligibility is Eligibility.DRAINING
    if draining != (worker.drain_deadline_unix_ms is not None):
        yield f"7: {name} drains without a deadline, or has one and does not drain"
    if worker.work is Work.IDLE and not worker.cleanup_verified:
        yield f"8: {name} is idle and was not seen to be clean"


def _request(state: LedgerState, worker: WorkerRecord) -> Iterator[str]:
    request = worker.release_request
    if request is None:
        return
    name = f"the request to release {worker.worker_id}"
    if why_void(worker, request) is not None:
        yield f"4: {name} speaks of another quarantine or other evidence"
    if state.worker_by_release.get(request.release_id) != worker.worker_id:
        yield f"4: {name} is not found by its id"
    due = state.deadlines.at(DeadlineKind.RELEASE, worker.worker_id)
    if due is None or due > request.expires_at_unix_ms:
        yield f"11: nothing would end {name}"


def _demand(worker: WorkerRecord) -> Iterator[str]:
    demand = worker.demand
    if demand is None:
        return
    name = f"worker {worker.worker_id}"
    if worker.confined:
        yield f"4: {name} is held, and less is demanded of it than its release takes"
    if worker.proof.attested_until_unix_ms > demand.due_at_unix_ms:
        yield f"5: {name} is attested for longer than what is demanded of it lets it"


def _liveness(state: LedgerState, worker: WorkerRecord) -> Iterator[str]:
    if worker.liveness is not Liveness.LIVE:
        return
    beat = state.beats.get(worker.worker_id)
    due = state.deadlines.at(DeadlineKind.HEARTBEAT, worker.worker_id)
    if beat is None or due is None or due > beat.deadline_unix_ms + 1:
        yield f"8: worker {worker.worker_id} is live and nothing would end that"


def _placing(state: LedgerState, worker: WorkerRecord) -> Iterator[str]:
    name, placing = f"worker {worker.worker_id}", state.placing
    beat = state.beats.get(worker.worker_id)
    until = worker.proof.attested_until_unix_ms
    offer = placing.offer_to(worker.worker_id)
    may_wait = beat is not None and beat.waits and idle(worker) and offer is None
    if placing.waits(worker.worker_id):
        due = state.deadlines.at(DeadlineKind.WAITING, worker.worker_id)
        if not may_wait or due is None or due > until:
            yield f"{name} could be offered a run that it may not take"
    elif may_wait and until > state.high_water_unix_ms:
        yield f"{name} waits and would never be offered a run"
    if offer is None:
        return
    grant = state.grants.get(offer.grant_id)
    if not idle(worker) or grant is None or not grant.is_for(worker.worker_id):
        yield f"{name} is offered a run that it may not take"
    elif offer.expires_at_unix_ms > min(until, grant.expires_at_unix_ms):
        yield f"{name} is offered a run for longer than its evidence or the approval"
    if state.placing.offer_of(offer.order.run_id) != offer:
        yield f"1: the run that {name} is offered is offered otherwise"
    if offer.order.run_id in state.lease_by_run:
        yield f"1: the run that {name} is offered has a lease"
    due = state.deadlines.at(DeadlineKind.OFFER, offer.offer_id)
    if due is None or due > offer.expires_at_unix_ms:
        yield f"11: nothing would end what {name} is offered"


def _lease(
    state: LedgerState, policy: WorkerFleetPolicy, worker: WorkerRecord, lease: WorkerLease
) -> Iterator[str]:
    name = f"lease {lease.lease_id}"
    end = lease.expires_at_unix_ms
    if lease.worker_id != worker.worker_id or worker.work is not _WORK_OF.get(lease.status):
        yield f"1: {name} and its worker say different things"
    if state.lease_by_run.get(lease.run_id) != lease.lease_id:
        yield f"1: {name} is not its run's lease"
    if not lease.fence == worker.last_fence <= state.highest_fence:
        yield f"2: {name} has a fence that is not its worker's last"
    if end > min(worker.proof.attested_until_unix_ms, lease.grant_expires_at_unix_ms):
        yield f"5: {name} outlives its approval or its worker's evidence"
    if end > state.high_water_unix_ms + policy.lease_max_ms:
        yield f"5: {name} is longer than the policy gives"
    due = state.deadlines.at(DeadlineKind.LEASE, lease.lease_id)
    if due is None or due > end:
        yield f"11: nothing would end {name}"
