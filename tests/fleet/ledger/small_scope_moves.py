"""The moves of the small fleets: each command as one step from a place, with what it needs.

A move answers the decision or refusal, or None where it does not apply. Ids, keys and the numbers
of heartbeats come from the place. Times: ticks, from `START_MS` on.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.leases.approval_rules import RunAsked
from palyra_fleet.leases.offers import PlacementOrder
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger import enrolment, freezing
from palyra_fleet.ledger.deadlines import DeadlineHeap
from palyra_fleet.ledger.decision import (
    EnrolledKey,
    EventReason,
    ReferenceValue,
)
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from tests.fakes.approval_rules import NO_RULES, RULES
from tests.fakes.ledger_world import SCOPE, attested, key_of, ulid

POLICY = WorkerFleetPolicy(
    heartbeat_timeout_ms=2,
    lease_max_ms=2,
    attestation_max_ms=3,
    binding_max_age_ms=3,
    lease_binding_max_age_ms=2,
    release_request_ms=2,
    offer_ms=1,
    reattest_within_ms=1,
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


def moves(workers: int, trust: bool) -> Iterator[tuple[str, Move]]:
    """Every command there is, by name."""
    for number in range(workers):
        for name, move in _of_worker(ulid(number + 1)).items():
            yield f"{name} {number + 1}", move
        if trust:
            yield f"label {number + 1}", _label(ulid(number + 1))
            yield f"approve_by_rule {number + 1}", _approved_by_rule(ulid(number + 1))
        for run in RUNS:
            yield f"grant_lease {number + 1} {run}", _ask(ulid(number + 1), run)
        yield f"grant_lease {number + 1} offered", _take(ulid(number + 1))
    for run in RUNS:
        yield f"create_grant {run}", _create_grant(run)
        yield f"withdraw_grant {run}", _withdraw(run)
        yield f"revoke_lease {run}", _revoke(run)
        yield f"place {run}", _place(run)
    if trust:
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


def result_of(place: Place, worker_id: str, key: str) -> AttestationResult:
    found = attested(worker_id, key, until_unix_ms=place.now + 3, now_unix_ms=place.now)
    return replace(found, device_id="device-1")


def _of_worker(who: str) -> dict[str, Move]:
    def register(manager: WorkerFleetManager, place: Place) -> Outcome:
        return manager.register(result_of(place, who, "a"), place.now)

    def register_anew(manager: WorkerFleetManager, place: Place) -> Outcome:
        key = f"{sum(who in part for part in place.path)}/{place.serial}"
        return manager.register(result_of(place, who, key), place.now)

    def go_on(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        worker = place.state.workers.get(who)
        if worker is None:
            return None
        proof = worker.candidate or worker.proof
        result = replace(
            result_of(place, who, "a"), public_key=proof.public_key, key_sha256=proof.key_sha256
        )
        return manager.register(result, place.now, True)

    def go_on_with_the_next_key(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        worker = place.state.workers.get(who)
        if worker is None:
            return None
        key = f"next/{sum(who in part for part in place.path)}/{place.serial}"
        signer = (worker.candidate or worker.proof).key_sha256
        result = replace(result_of(place, who, key), succeeds_key_sha256=signer)
        return manager.register(result, place.now, True)

    def demand(new_key: bool) -> Move:
        return lambda manager, place: manager.reattest(
            who, new_key, None, "alice", "why", place.now
        )

    def beat(waits: bool) -> Move:
        def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
            worker = place.state.workers.get(who)
            if worker is None:
                return None
            return manager.heartbeat(who, worker.session_epoch, place.serial, place.now, waits)

        return act

    def decline(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        offer = place.state.placing.offer_to(who)
        if offer is None:
            return None
        session = place.state.workers[who].session_epoch
        return manager.decline(who, session, offer.offer_id, "why", place.now)

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
        "register next": go_on_with_the_next_key,
        "reattest": demand(new_key=False),
        "reattest key": demand(new_key=True),
        "heartbeat": beat(waits=False),
        "heartbeat waits": beat(waits=True),
        "decline": decline,
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


def _label(who: str) -> Move:
    return lambda manager, place: manager.label(who, {"a": "1"}, (), *_ALICE, place.now)


def _place(run: str) -> Move:
    def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        grant = place.state.usable_grant(run, place.now)
        if grant is None:
            return None
        offer_id = ulid(200 + place.serial * 8 + len(place.path))
        return manager.place(PlacementOrder(run, 2), grant.grant_id, offer_id, "alice", place.now)

    return act


def _take(who: str) -> Move:
    """Of what is offered, by the number of the offer."""

    def act(manager: WorkerFleetManager, place: Place) -> Outcome | None:
        offer = place.state.placing.offer_to(who)
        if offer is None:
            return None
        order = LeaseOrder(offer.order.run_id, 2, (), SCOPE, offer_id=offer.offer_id)
        lease_id = ulid(1_000 + place.serial * 8 + len(place.path))
        session = place.state.workers[who].session_epoch
        return manager.grant_lease(
            who, session, offer.grant_id, order, lease_id, "5" * 64, place.now
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
        placing=state.placing.copy(),
        policy_words=dict(state.policy_words),
        rules=state.rules.copy(),
        deadlines=DeadlineHeap(list(heap._heap), dict(heap._queued), dict(heap._current)),
        recent_quarantines=deque(),
    )
