"""Every sequence of commands in a very small fleet, up to a depth; each state looked at once.

One or two workers, one proxy, two runs, ends that come after two or three ticks of the clock. A
state is told apart by what matters for what may happen next: times count from now, fences by their
order, workers and runs by what they are and not by their name. After every command the auditor
looks at all of the ledger, `transitions` at what the command changed, and what must be refused is.
Run as a program it goes deeper: `python -m tests.fleet.ledger.small_scope WORKERS DEPTH SECONDS`,
with enrolments if a fourth word follows.
"""

import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.binding import binding_refusal
from palyra_fleet.ledger.decision import (
    Decision,
    FleetFreeze,
    Tombstone,
    TombstoneKind,
)
from palyra_fleet.ledger.facts import Proof, WorkerRecord
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.state import LedgerState
from tests.fleet.ledger.small_scope_moves import (
    POLICY,
    REFERENCE,
    START_MS,
    Move,
    Place,
    moves,
    result_of,
)
from tests.fleet.ledger.transitions import broken_by, decision_problems, leased_wrongly


@dataclass(slots=True)
class Scope:
    """The moves, and what was found."""

    workers: int
    trust: bool = True
    """Also play what concerns every worker and multiplies states: enrolments, references, freezes
    (a fleet with them begins frozen)."""
    commands: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    states: int = 0
    steps: int = 0
    depth: int = 0
    problems: list[str] = field(default_factory=list)

    def explore(self, depth: int, seconds: float) -> None:
        """Breadth first until the depth or the time is reached; stops at the first problem."""
        until = time.monotonic() + seconds
        start = LedgerState(high_water_unix_ms=START_MS, references={REFERENCE})
        start.freeze = FleetFreeze(self.trust, START_MS)
        first = Place(start)
        seen = {canonical(first)}
        frontier = deque([first])
        while frontier and not self.problems and time.monotonic() < until:
            place = frontier.popleft()
            self.depth = len(place.path)
            if self.depth >= depth:
                break
            for name, move in moves(self.workers, self.trust):
                after = self.step(place, name, move)
                if after is not None and (key := canonical(after)) not in seen:
                    seen.add(key)
                    frontier.append(after)
        self.states = len(seen)

    def step(self, place: Place, name: str, move: Move) -> Place | None:
        """One command on a copy. None where it does not apply or is refused."""
        after = place.fork()
        after.path = (*place.path, name)
        manager = WorkerFleetManager(POLICY, after.state)
        before = dict(after.state.workers)
        outcome = move(manager, after)
        if outcome is None:
            return None
        command = name.split(maxsplit=1)[0]
        self.steps += 1
        self.commands.add(command)
        if not isinstance(outcome, Decision):
            self.outcomes[f"{command}: {outcome.reason}"] += 1
            return None
        self.outcomes[command] += 1
        problems = decision_problems(outcome, after.state)
        problems += leased_wrongly(command, outcome, after.state)
        manager.apply(outcome)
        after.ended += tuple(
            r for r in outcome.records if isinstance(r, WorkerLease) and not r.status.live
        )[:1]
        problems += broken_by(command, before, after.state.workers)
        problems += audit(after.state, POLICY)
        problems += _stale_fences(manager, after)
        if problems:
            self.problems.append(f"{' / '.join(after.path)}: {problems}")
        return after


def _stale_fences(manager: WorkerFleetManager, place: Place) -> list[str]:
    """6: whatever ended is refused, whoever comes with it."""
    problems = []
    for lease in place.ended[-2:]:
        worker = place.state.workers.get(lease.worker_id)
        session = 1 if worker is None else worker.session_epoch
        who, lease_id, fence, now = lease.worker_id, lease.lease_id, lease.fence, place.now
        outcomes = (
            manager.start_lease(who, session, lease_id, fence, now),
            manager.renew_lease(who, session, lease_id, fence, None, now),
            manager.complete_lease(who, session, lease_id, fence, True, now),
        )
        if any(isinstance(outcome, Decision) for outcome in outcomes):
            problems.append("6: a fence that ended was accepted")
    return problems


def canonical(place: Place) -> object:
    """Two places of which everything that can happen next is the same have the same."""
    state = place.state
    shown = sorted(_worker(place, worker) for worker in state.workers.values())
    banned = sum(mark.kind == "identity" for mark in state.tombstones)
    grants = sorted(
        (
            *(state.grants[each].expires_at_unix_ms - place.now for each in of_run),
            run in state.lease_by_run,
            run in state.placing.offer_by_run,
            sum(state.grants[each].rule is not None for each in of_run),
            *(state.grants[each].worker_id is not None for each in of_run),
        )
        for run, of_run in state.grants_by_run.items()
    )
    trusted = (
        state.freeze.frozen,
        len(state.references),
        *(key.revoked for key in state.enrolled.values()),
    )
    return (tuple(shown), banned, tuple(grants), trusted)


def _worker(place: Place, worker: WorkerRecord) -> tuple[object, ...]:
    state, now = place.state, place.now
    beat = state.beats.get(worker.worker_id)
    lease = state.live_lease_of(worker.worker_id)
    held = worker.quarantine
    drain = worker.drain_deadline_unix_ms
    asked, wanted = worker.release_request, worker.demand
    return (
        worker.admission,
        worker.eligibility,
        worker.liveness,
        worker.work,
        worker.cleanup_verified,
        worker.proof.attestation_epoch > worker.failed_at_attestation_epoch,
        99 if drain is None else max(-1, drain - now),
        _proof(place, worker, worker.proof),
        () if worker.candidate is None else _proof(place, worker, worker.candidate),
        99 if beat is None else max(-1, beat.deadline_unix_ms - now),
        ()
        if lease is None
        else (lease.status, lease.expires_at_unix_ms - now, lease.grant_expires_at_unix_ms - now),
        held is not None and held.key_sha256 == worker.proof.key_sha256,
        99 if asked is None else max(-1, asked.expires_at_unix_ms - now),
        any(w.worker_id == worker.worker_id for w in place.ended[-2:]),
        beat is not None and beat.waits,
        () if wanted is None else (wanted.new_key, max(-1, wanted.due_at_unix_ms - now)),
        Tombstone(TombstoneKind.KEY, result_of(place, worker.worker_id, "a").key_sha256)
        in state.tombstones,
        *_offer(place, worker),
    )


def _offer(place: Place, worker: WorkerRecord) -> tuple[int, ...]:
    """What it is offered. Who would be, of two that wait, is no part: both may be."""
    offer = place.state.placing.offer_to(worker.worker_id)
    if offer is None:
        return ()
    grant = place.state.grants[offer.grant_id]
    return offer.expires_at_unix_ms - place.now, grant.expires_at_unix_ms - place.now


def _proof(place: Place, worker: WorkerRecord, proof: Proof) -> tuple[object, ...]:
    held = worker.quarantine
    return (
        max(0, proof.attested_until_unix_ms - place.now),
        max(-3, proof.bound_at_unix_ms - place.now),
        binding_refusal(place.state, POLICY, proof, place.now) is None,
        proof.key_sha256 == result_of(place, worker.worker_id, "a").key_sha256,
        held is not None and proof.attestation_epoch > held.attestation_epoch,
    )


def main(workers: int, depth: int, seconds: float, trust: bool) -> int:
    scope = Scope(workers, trust)
    scope.explore(depth, seconds)
    print(f"{scope.states} states, {scope.steps} steps, depth {scope.depth}")
    for outcome, count in sorted(scope.outcomes.items()):
        print(f"  {count:9}  {outcome}")
    for problem in scope.problems:
        print("PROBLEM", problem)
    return 1 if scope.problems else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), len(sys.argv) > 4))
