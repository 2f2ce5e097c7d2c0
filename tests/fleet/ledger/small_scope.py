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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.leases.approval_rules import RunAsked
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger import enrolment, freezing
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.binding import binding_refusal
from palyra_fleet.ledger.deadlines import DeadlineHeap
from palyra_fleet.ledger.decision import (
    Decision,
    EnrolledKey,
    EventReason,
    FleetFreeze,
    ReferenceValue,
)
from palyra_fleet.ledger.facts import Proof, WorkerRecord
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from tests.fakes.approval_rules import NO_RULES, RULES
from tests.fakes.ledger_world import SCOPE, attested, key_of, ulid
from tests.fleet.ledger.transitions import broken_by, decision_problems

POLICY = WorkerFleetPolicy(
    heartbeat_timeout_ms=2,
    lease_max_ms=2,
    attestation_max_ms=3,
    binding_max_age_ms=3,
    lease_binding_max_age_ms=2,
    release_request_ms=2,
    max_workers=2,
    max_leases=2,
    storm_quarantines_per_minute=1_000,
)
START_MS = 1_000
RUNS = ("run-1", "run-2")
REFERENCE = ReferenceValue("image", "a" * 64)
PROXY = EnrolledKey("proxy", "proxy-1", key_of("proxy-1"), device_id="device-1")


@dataclass(slots=True)
class Place:
    """One state of the small fleet, and how it was reached. `serial` makes ids, keys and beats."""

    state: LedgerState
    path: tuple[str, ...] = ()
    serial: int = 1
    ended: tuple[WorkerLease, ...] = ()

    @property
    def now(self) -> int:
        return self.state.high_water_unix_ms

    def fork(self) -> "Place":
        return Place(clone(self.state), self.path, self.serial + 1, self.ended)


type Move = Callable[[WorkerFleetManager, Place], Outcome | None]


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
            for name, move in self.moves():
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

    def moves(self) -> Iterator[tuple[str, Move]]:
        for number in range(self.workers):
            for name, move in _of_worker(ulid(number + 1)).items():
                yield f"{name} {number + 1}", move
            if self.trust:
                yield f"approve_by_rule {number + 1}", _approved_by_rule(ulid(number + 1))
            for run in RUNS:
                yield f"grant_lease {number + 1} {run}", _ask(ulid(number + 1), run)
        for run in RUNS:
            yield f"create_grant {run}", _create_grant(run)
            yield f"withdraw_grant {run}", _withdraw(run)
            yield f"revoke_lease {run}", _revoke(run)
        if self.trust:
            yield from _OF_THE_FLEET.items()
        yield "reap tick", lambda manager, place: manager.reap(place.now + 1)
        yield "reap back", lambda manager, place: manager.reap(place.now - 2)
        yield "end_what_time_bounds", lambda m, place: m.end_what_time_bounds(1, place.now)


_ALICE = ("alice", "why")
_OF_THE_FLEET: dict[str, Move] = {
    "enrol": lambda manager, place: enrolment.enrol(place.state, PROXY, "alice", place.now),
    "take_back": lambda _, place: enrolment.take_back(
        place.state, "proxy", PROXY.name, *_ALICE, place.now
    ),
    "withdraw_references": lambda _, place: enrolment.withdraw_references(
        place.state, (REFERENCE,), *_ALICE, place.now
    ),
    "hear_policy": lambda manager, place: manager.hear_policy("proxy-1", "another", place.now),
    "rules_changed": lambda manager, place: manager.rules_changed(NO_RULES, place.now),
    "freeze": lambda _, place: freezing.freeze(place.state, True, *_ALICE, place.now),
    "unfreeze": lambda _, place: freezing.unfreeze(place.state, False, *_ALICE, place.now),
    "device_gone": lambda _, place: enrolment.device_gone(
        place.state, "device-1", *_ALICE, place.now
    ),
}


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


def _result(place: Place, worker_id: str, key: str) -> AttestationResult:
    found = attested(worker_id, key, until_unix_ms=place.now + 3, now_unix_ms=place.now)
    return replace(found, device_id="device-1")


def _of_worker(who: str) -> dict[str, Move]:
    def register(manager: WorkerFleetManager, place: Place) -> Outcome:
        return manager.register(_result(place, who, "a"), place.now)

    def register_anew(manager: WorkerFleetManager, place: Place) -> Outcome:
        key = f"{sum(who in part for part in place.path)}/{place.serial}"
        return manager.register(_result(place, who, key), place.now)

    def go_on(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        worker = place.state.workers.get(who)
        if worker is None:
            return None
        proof = worker.candidate or worker.proof
        result = replace(
            _result(place, who, "a"), public_key=proof.public_key, key_sha256=proof.key_sha256
        )
        return manager.register(result, place.now, True)

    def heartbeat(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        worker = place.state.workers.get(who)
        if worker is None:
            return None
        return manager.heartbeat(who, worker.session_epoch, place.serial, place.now)

    def on_lease(verb: str, *more: object) -> Move:
        def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
            lease = place.state.live_lease_of(who)
            if lease is None:
                return None
            session = place.state.workers[who].session_epoch
            command = getattr(manager, verb)
            return command(who, session, lease.lease_id, lease.fence, *more, place.now)  # type: ignore[no-any-return]

        return act

    def operator(verb: str, *more: object) -> Move:
        return lambda manager, place: getattr(manager, verb)(who, "alice", "why", *more, place.now)  # type: ignore[no-any-return]

    def caught(manager: WorkerFleetManager, place: Place) -> Outcome:
        reason = EventReason.QUARANTINED_BY_EGRESS
        return manager.quarantine(who, "proxy-1", "why", place.now, reason, "d" * 64)

    def ask_release(manager: WorkerFleetManager, place: Place) -> Outcome:
        release_id = ulid(700 + place.serial * 8 + len(place.path))
        return manager.request_release(who, release_id, "alice", "why", place.now)

    def void_release(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        asked = who in place.state.worker_by_release.values()
        return manager.void_release(who, "fleet", "why", place.now) if asked else None

    def answer_release(verb: str, actor: str) -> Move:
        def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
            for release_id, of in place.state.worker_by_release.items():
                if of == who:
                    return getattr(manager, verb)(release_id, actor, "why", place.now)  # type: ignore[no-any-return]
            return None

        return act

    return {
        "register same": register,
        "register new": register_anew,
        "register continue": go_on,
        "heartbeat": heartbeat,
        "start_lease": on_lease("start_lease"),
        "renew_lease": on_lease("renew_lease", None),
        "complete_lease clean": on_lease("complete_lease", True),
        "complete_lease dirty": on_lease("complete_lease", False),
        "quarantine": caught,
        "drain": operator("drain", 1),
        "request_release": ask_release,
        "approve_release other": answer_release("approve_release", "bob"),
        "approve_release same": answer_release("approve_release", "alice"),
        "withdraw_release": answer_release("withdraw_release", "bob"),
        "void_release": void_release,
        **{
            verb: operator(verb)
            for verb in ("release", "reverify", "ban", "evict", "cordon", "uncordon")
        },
    }


def _ask(who: str, run: str) -> Move:
    def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        worker = place.state.workers.get(who)
        grant = place.state.usable_grant(run, place.now)
        if worker is None or grant is None:
            return None
        order = LeaseOrder(run, 2, (), SCOPE)
        lease_id = ulid(1_000 + place.serial * 8 + len(place.path))
        session = worker.session_epoch
        return manager.grant_lease(
            who, session, grant.grant_id, order, lease_id, "5" * 64, place.now
        )

    return act


def _create_grant(run: str) -> Move:
    def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        if place.state.grants_by_run.get(run):
            return None  # a second one adds nothing but states
        grant_id = ulid(500 + place.serial * 8 + len(place.path))
        grant = WorkerApprovalGrant(grant_id, run, "tool", "who", "profile", place.now + 3, "alice")
        return manager.create_grant(grant, "alice", place.now)

    return act


def _approved_by_rule(who: str) -> Move:
    def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        worker = place.state.workers.get(who)
        if worker is None:
            return None
        grant_id = ulid(300 + place.serial * 8 + len(place.path))
        asked = RunAsked(RUNS[0], "tool", "profile")
        return manager.approve_by_rule(RULES, who, worker.session_epoch, asked, grant_id, place.now)

    return act


def _withdraw(run: str) -> Move:
    def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        grant = place.state.usable_grant(run, place.now)
        if grant is None:
            return None
        return manager.withdraw_grant(grant, "alice", "why", place.now)

    return act


def _revoke(run: str) -> Move:
    def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        lease_id = place.state.lease_by_run.get(run)
        if lease_id is None:
            return None
        return manager.revoke_lease(lease_id, "alice", "why", place.now)

    return act


def clone(state: LedgerState) -> LedgerState:
    """A state that may change by itself; the records in it never change."""
    heap = state.deadlines
    return replace(
        state,
        workers=dict(state.workers),
        worker_by_key=dict(state.worker_by_key),
        worker_by_identity=dict(state.worker_by_identity),
        worker_by_release=dict(state.worker_by_release),
        leases=dict(state.leases),
        lease_by_worker=dict(state.lease_by_worker),
        lease_by_run=dict(state.lease_by_run),
        leases_per_principal=Counter(state.leases_per_principal),
        grants=dict(state.grants),
        grants_by_run={run: dict(of_run) for run, of_run in state.grants_by_run.items()},
        tombstones=set(state.tombstones),
        enrolled=dict(state.enrolled),
        references=set(state.references),
        beats=dict(state.beats),
        policy_words=dict(state.policy_words),
        rules=state.rules.copy(),
        deadlines=DeadlineHeap(list(heap._heap), dict(heap._queued), dict(heap._current)),
        recent_quarantines=deque(),
    )


def canonical(place: Place) -> object:
    """Two places of which everything that can happen next is the same have the same."""
    state = place.state
    shown = sorted(_worker(place, worker) for worker in state.workers.values())
    banned = sum(mark.kind == "identity" for mark in state.tombstones)
    grants = sorted(
        (
            *(state.grants[each].expires_at_unix_ms - place.now for each in of_run),
            run in state.lease_by_run,
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
    asked = worker.release_request
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
    )


def _proof(place: Place, worker: WorkerRecord, proof: Proof) -> tuple[object, ...]:
    held = worker.quarantine
    return (
        max(0, proof.attested_until_unix_ms - place.now),
        max(-3, proof.bound_at_unix_ms - place.now),
        binding_refusal(place.state, POLICY, proof, place.now) is None,
        proof.key_sha256 == _result(place, worker.worker_id, "a").key_sha256,
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
