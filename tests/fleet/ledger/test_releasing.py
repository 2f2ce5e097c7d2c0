"""Releases that one person asks for and another approves: of exactly what was looked at."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from palyra_fleet.ledger import enrolment
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.decision import Decision, EnrolledKey, LedgerEvent
from palyra_fleet.ledger.facts import ReleaseRequest, why_void
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason
from tests.fakes.ledger_world import LedgerWorld, attested, key_of, reasons, refused, ulid

W1, ASKED = ulid(1001), ulid(2001)
NOW = 2_000
POLICY = WorkerFleetPolicy(two_person_release=True, release_request_ms=1_000)


def quarantined(policy: WorkerFleetPolicy = POLICY) -> LedgerWorld:
    """A worker that has shown a new key since it was quarantined."""
    world = LedgerWorld(WorkerFleetManager(policy))
    world.register(W1)
    world.do(world.manager.quarantine(W1, "proxy-1", "why", NOW))
    world.register(W1, key="newer")
    return world


def ask(world: LedgerWorld, who: str = "alice", now: int = NOW) -> Outcome:
    return world.manager.request_release(W1, ASKED, who, "looked at", now)


def asked() -> LedgerWorld:
    world = quarantined()
    world.do(ask(world))
    return world


def request_of(world: LedgerWorld) -> ReleaseRequest | None:
    assert audit(world.manager.state, POLICY) == ()
    return world.worker(W1).release_request


def test_one_persons_word_releases_nobody_where_two_are_asked() -> None:
    world = quarantined()
    outcome = world.manager.release(W1, "alice", "why", NOW)
    assert refused(outcome) is FleetReason.RELEASE_NEEDS_SECOND
    world = quarantined(WorkerFleetPolicy())
    world.do(world.manager.release(W1, "alice", "why", NOW))


def test_one_asks_and_another_approves() -> None:
    world = quarantined()
    candidate = world.worker(W1).candidate
    made = world.do(ask(world))
    assert reasons(made) == ["worker.release_requested"]
    assert world.worker(W1).confined
    done = world.do(world.manager.approve_release(ASKED, "bob", "me too", NOW))
    assert reasons(done) == ["worker.release_approved", "worker.released_by_operator"]
    assert [event.actor for event in done.events] == ["bob", "bob"]
    assert done.events[0].detail == {
        "release_id": ASKED,
        "asked_by": "alice",
        "why": "me too",
        "asked_why": "looked at",
    }
    assert (world.worker(W1).confined, world.worker(W1).proof) == (False, candidate)
    assert request_of(world) is None


def test_who_asks_does_not_approve() -> None:
    world = asked()
    outcome = world.manager.approve_release(ASKED, "alice", "why", NOW)
    assert refused(outcome) is FleetReason.RELEASE_SAME_PERSON
    assert request_of(world) is not None


@pytest.mark.parametrize(
    ("evidence", "refusal"),
    [
        (None, FleetReason.RELEASE_NEEDS_EVIDENCE),
        ("key", FleetReason.RELEASE_NEEDS_KEY),
        ("newer", None),
    ],
)
def test_asking_takes_all_that_a_release_takes(
    evidence: str | None, refusal: FleetReason | None
) -> None:
    world = LedgerWorld(WorkerFleetManager(POLICY))
    world.register(W1)
    assert refused(ask(world)) is FleetReason.NOT_QUARANTINED
    world.do(world.manager.quarantine(W1, "proxy-1", "why", NOW))
    if evidence is not None:
        world.register(W1, key=evidence)
    outcome = ask(world)
    assert (None if isinstance(outcome, Decision) else outcome.reason) is refusal


def test_a_worker_that_is_asked_for_is_not_asked_for_twice() -> None:
    world = asked()
    again = world.manager.request_release(W1, ulid(2002), "bob", "why", NOW)
    assert refused(again) is FleetReason.RELEASE_REQUESTED


def test_a_request_is_good_until_its_last_millisecond_and_not_in_it() -> None:
    world = asked()
    end = NOW + POLICY.release_request_ms
    late = world.manager.approve_release(ASKED, "bob", "why", end)
    assert refused(late) is FleetReason.RELEASE_UNKNOWN
    assert refused(ask(world, now=end - 1)) is FleetReason.RELEASE_REQUESTED
    assert isinstance(ask(world, now=end), Decision)
    world.do(world.manager.reap(end - 1))
    assert request_of(world) is not None
    assert reasons(world.do(world.manager.reap(end)))[-1] == "worker.release_request_expired"
    assert request_of(world) is None


def test_a_request_ends_with_the_evidence_that_it_speaks_of() -> None:
    world = LedgerWorld(WorkerFleetManager(POLICY))
    world.register(W1)
    world.do(world.manager.quarantine(W1, "proxy-1", "why", NOW))
    world.do(world.manager.register(attested(W1, "newer", until_unix_ms=NOW + 50), NOW))
    world.do(ask(world))
    found = request_of(world)
    assert found is not None
    assert found.expires_at_unix_ms == NOW + 50


def test_a_request_that_was_withdrawn_is_gone() -> None:
    world = asked()
    done = world.do(world.manager.withdraw_release(ASKED, "carol", "not yet", NOW))
    assert reasons(done) == ["worker.release_withdrawn"]
    outcomes = [
        world.manager.approve_release(ASKED, "bob", "why", NOW),
        world.manager.withdraw_release(ASKED, "bob", "why", NOW),
    ]
    assert [refused(one) for one in outcomes] == [FleetReason.RELEASE_UNKNOWN] * 2
    assert world.worker(W1).confined


def _quarantine(world: LedgerWorld) -> Outcome:
    return world.manager.quarantine(W1, "proxy-1", "why", NOW)


def _newer_evidence(world: LedgerWorld) -> Outcome:
    return world.manager.register(attested(W1, "newer"), NOW)


def _another_key(world: LedgerWorld) -> Outcome:
    return world.manager.register(attested(W1, "another"), NOW)


def _ban(world: LedgerWorld) -> Outcome:
    return world.manager.ban(W1, "carol", "why", NOW)


def _time_is_lost(world: LedgerWorld) -> Outcome:
    return world.manager.end_what_time_bounds(1, NOW)


def _further_evidence(world: LedgerWorld) -> Outcome:
    return world.manager.void_release(W1, "fleet", "further evidence", NOW)


def _trust_is_taken_back(world: LedgerWorld) -> Outcome:
    state = world.manager.state
    world.do(enrolment.enrol(state, EnrolledKey("proxy", "proxy-1", key_of("p")), "a", NOW))
    return enrolment.take_back(state, "proxy", "proxy-1", "a", "why", NOW)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_quarantine, "the worker was quarantined again"),
        (_newer_evidence, "the worker has shown newer evidence"),
        (_another_key, "the worker has shown newer evidence"),
        (_ban, "the worker is banned"),
        (_time_is_lost, "the evidence it rests on has ended"),
        (_further_evidence, "further evidence"),
        (_trust_is_taken_back, "the evidence it rests on counts no more"),
    ],
)
def test_what_changes_the_grounds_of_a_request_voids_it(
    change: Callable[[LedgerWorld], Outcome], why: str
) -> None:
    world = asked()
    voided = world.do(change(world))
    (event,) = [one for one in voided.events if one.reason == "worker.release_request_voided"]
    assert (event.worker_id, event.detail["asked_by"], event.detail["why"]) == (W1, "alice", why)
    assert request_of(world) is None
    outcome = world.manager.approve_release(ASKED, "bob", "why", NOW)
    assert refused(outcome) is FleetReason.RELEASE_UNKNOWN


def test_a_request_speaks_of_one_key_and_of_evidence_that_lasts_as_long_as_it() -> None:
    """Two guards that no command gets to: evidence with the same number is the same evidence."""
    world = asked()
    worker, request = world.worker(W1), request_of(world)
    assert worker.candidate is not None
    assert request is not None
    end = request.expires_at_unix_ms
    for changed, why in (
        (replace(worker.candidate, attested_until_unix_ms=end), None),
        (replace(worker.candidate, attested_until_unix_ms=end - 1), "the evidence it rests on"),
        (replace(worker.candidate, key_sha256="f" * 64), "the worker has shown another key"),
    ):
        found = why_void(replace(worker, candidate=changed), request)
        assert (found is None) if why is None else (found or "").startswith(why)


def test_what_changes_nothing_of_it_leaves_a_request_as_it_is() -> None:
    world = asked()
    session = world.worker(W1).session_epoch
    world.do(world.manager.heartbeat(W1, session, 1, NOW))
    world.do(world.manager.cordon(W1, "carol", "why", NOW))
    world.do(world.manager.reap(NOW))
    assert request_of(world) is not None


def test_nothing_is_voided_where_nothing_is_asked() -> None:
    world = quarantined()
    for worker_id in (W1, ulid(77)):
        assert world.manager.void_release(worker_id, "fleet", "why", NOW) == Decision(NOW)


def test_a_request_is_found_again_after_a_reload() -> None:
    world = asked()
    before = world.manager.state
    records = (*before.workers.values(), *before.tombstones)
    world.manager.reload(records, before.highest_fence, NOW)
    assert request_of(world) is not None
    world.do(world.manager.approve_release(ASKED, "bob", "why", NOW))


def test_the_setting_does_not_touch_what_was_asked_before() -> None:
    """Switched off, one person's word counts again, and the log says what became of the asking."""
    world = asked()
    world.manager.policy = replace(POLICY, two_person_release=False)
    released = world.do(world.manager.release(W1, "alice", "why", NOW))
    assert [one.reason.value for one in _about_requests(released)] == [
        "worker.release_request_voided"
    ]
    assert request_of(world) is None


def _about_requests(decision: Decision) -> list[LedgerEvent]:
    return [event for event in decision.events if "request" in event.reason]


def test_nobodys_release_is_asked_for() -> None:
    outcome = quarantined().manager.request_release(ulid(1009), ASKED, "alice", "why", NOW)
    assert refused(outcome) is FleetReason.WORKER_UNKNOWN


def test_an_approval_looks_at_the_evidence_itself() -> None:
    """No command leads there, since a request ends with its evidence: the guard does not rest on
    that."""
    world = asked()
    worker = world.worker(W1)
    assert worker.candidate is not None
    ended = replace(worker.candidate, attested_until_unix_ms=NOW)
    world.manager.state.workers[W1] = replace(worker, candidate=ended)
    outcome = world.manager.approve_release(ASKED, "bob", "why", NOW)
    assert refused(outcome) is FleetReason.RELEASE_NEEDS_EVIDENCE


def test_asking_and_withdrawing_again_and_again_does_not_grow_the_heap() -> None:
    world = asked()
    before = len(world.manager.state.deadlines._heap)
    for number in range(100):
        release_id = ASKED if number == 0 else ulid(3000 + number - 1)
        world.do(world.manager.withdraw_release(release_id, "carol", "not yet", NOW))
        world.do(world.manager.request_release(W1, ulid(3000 + number), "alice", "why", NOW))
    assert len(world.manager.state.deadlines._heap) <= before + 1
