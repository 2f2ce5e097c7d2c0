"""The ledger's commands, one rule at a time; what the service tests do not already say."""

from dataclasses import replace

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.records import LeaseOrder
from palyra_fleet.ledger.decision import Beat, Decision, EventReason, FleetFreeze, LedgerEvent
from palyra_fleet.ledger.facts import (
    Admission,
    Eligibility,
    Liveness,
    Work,
    WorkerLifecycleState,
    WorkerRecord,
    assignable,
    lifecycle_state,
)
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason
from tests.fakes.ledger_world import SCOPE, LedgerWorld, attested, reasons, refused, ulid

W1, W2 = ulid(1001), ulid(1002)


@pytest.fixture
def world() -> LedgerWorld:
    world = LedgerWorld()
    world.register(W1)
    return world


@pytest.fixture
def worker(world: LedgerWorld) -> WorkerRecord:
    return world.worker(W1)


S = WorkerLifecycleState


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, S.AVAILABLE),
        ({"admission": Admission.QUARANTINED, "work": Work.FAILED}, S.QUARANTINED),
        ({"admission": Admission.BANNED}, S.QUARANTINED),
        ({"work": Work.FAILED, "liveness": Liveness.STALE}, S.FAILED),
        ({"work": Work.ORPHANED, "liveness": Liveness.STALE}, S.ORPHANED),
        ({"liveness": Liveness.STALE, "eligibility": Eligibility.CORDONED}, S.OFFLINE),
        ({"eligibility": Eligibility.CORDONED, "work": Work.BUSY}, S.DRAINING),
        ({"eligibility": Eligibility.DRAINING}, S.DRAINING),
        ({"work": Work.BUSY}, S.BUSY),
        ({"work": Work.CLEANUP}, S.BUSY),
        ({"work": Work.ASSIGNED}, S.ASSIGNED),
        ({"liveness": Liveness.NEVER}, S.REGISTERED),
    ],
)
def test_the_public_state_is_the_first_that_matches(
    worker: WorkerRecord, facts: dict[str, object], state: WorkerLifecycleState
) -> None:
    assert lifecycle_state(replace(worker, **facts), 2_000) is state  # type: ignore[arg-type]


def test_a_worker_whose_evidence_ran_out_is_only_registered(worker: WorkerRecord) -> None:
    until = worker.proof.attested_until_unix_ms
    assert lifecycle_state(worker, until - 1) is S.AVAILABLE
    assert lifecycle_state(worker, until) is S.REGISTERED


@pytest.mark.parametrize(
    "facts",
    [
        {"admission": Admission.PENDING},
        {"admission": Admission.QUARANTINED},
        {"admission": Admission.BANNED},
        {"eligibility": Eligibility.CORDONED},
        {"eligibility": Eligibility.DRAINING},
        {"liveness": Liveness.NEVER},
        {"liveness": Liveness.STALE},
        *({"work": work} for work in Work if work is not Work.IDLE),
        {"cleanup_verified": False},
    ],
)
def test_each_fact_alone_makes_a_worker_unassignable(
    worker: WorkerRecord, facts: dict[str, object]
) -> None:
    assert assignable(worker, 3_000, 2_500, (), 60_000, BindingLevel.OBSERVED, 2_000)
    spoiled = replace(worker, **facts)  # type: ignore[arg-type]
    assert not assignable(spoiled, 3_000, 2_500, (), 60_000, BindingLevel.OBSERVED, 2_000)


@pytest.mark.parametrize(
    ("deadline", "end", "capabilities", "binding_age_ms"),
    [
        (1_999, 2_500, (), 60_000),  # the heartbeat is overdue
        (3_000, 2_000, (), 60_000),  # a lease without length
        (3_000, 10**12, (), 60_000),  # a lease beyond the attestation
        (3_000, 2_500, ("gpu",), 60_000),  # a capability it does not have
        (3_000, 2_500, (), 0),  # the binding is not fresh
    ],
)
def test_deadline_end_capability_and_binding_each_count(
    worker: WorkerRecord,
    deadline: int,
    end: int,
    capabilities: tuple[str, ...],
    binding_age_ms: int,
) -> None:
    assert not assignable(
        worker, deadline, end, capabilities, binding_age_ms, BindingLevel.OBSERVED, 2_000
    )


def test_a_worker_may_take_a_lease_in_the_last_millisecond_of_its_beat(
    worker: WorkerRecord,
) -> None:
    assert assignable(worker, 2_000, 2_500, (), 60_000, BindingLevel.OBSERVED, 2_000)


def test_deciding_changes_nothing(world: LedgerWorld) -> None:
    before = (dict(world.manager.state.workers), world.manager.state.high_water_unix_ms)
    world.manager.quarantine(W1, "alice", "why", 9_000)
    world.manager.reap(10**9)
    assert (world.manager.state.workers, world.manager.state.high_water_unix_ms) == before


def test_a_grant_for_another_run_is_refused_in_the_published_words(world: LedgerWorld) -> None:
    grant_id = world.grant("run-1", 2_000)
    outcome = world.manager.grant_lease(
        W1, 1, grant_id, LeaseOrder("run-2", 1_000, (), SCOPE), ulid(1), "5" * 64, 2_000
    )
    assert refused(outcome) is FleetReason.LEASE_INVALID
    expected = "worker lease request is invalid: grant run_id must match lease run_id"
    assert outcome.text == expected  # type: ignore[union-attr]


def test_a_lease_ends_with_the_first_of_ttl_policy_grant_and_attestation() -> None:
    """Invariant 5."""
    for ttl_ms, lease_max_ms, grant_end, evidence_end, end in (
        (10, 50, 2_060, 2_070, 2_010),
        (99, 50, 2_060, 2_070, 2_050),
        (99, 98, 2_060, 2_070, 2_060),
        (99, 98, 2_080, 2_070, 2_070),
    ):
        manager = WorkerFleetManager(WorkerFleetPolicy(lease_max_ms=lease_max_ms))
        world = LedgerWorld(manager)
        world.do(manager.register(attested(W1, until_unix_ms=evidence_end), 2_000))
        world.grant("run-1", 2_000, grant_end)
        world.do(world.ask(W1, "run-1", 2_000, ttl_ms))
        (lease,) = manager.state.leases.values()
        assert lease.expires_at_unix_ms == end


def test_a_renewal_counts_from_its_own_now_under_the_same_caps() -> None:
    """Invariant 5: ttl, longest time from the renewal, grant, attestation."""
    for ttl_ms, lease_max_ms, grant_end, evidence_end, end in (
        (10, 50, 9_000, 9_000, 2_040),  # never earlier than it ends already
        (30, 50, 9_000, 9_000, 2_060),
        (None, 50, 9_000, 9_000, 2_080),
        (99, 50, 9_000, 9_000, 2_080),
        (99, 50, 2_070, 9_000, 2_070),
        (99, 50, 9_000, 2_065, 2_065),
    ):
        world = LedgerWorld(WorkerFleetManager(WorkerFleetPolicy(lease_max_ms=lease_max_ms)))
        world.do(world.manager.register(attested(W1, until_unix_ms=evidence_end), 2_000))
        world.grant("run-1", 2_000, grant_end)
        world.do(world.ask(W1, "run-1", 2_000, 40))
        (lease,) = world.manager.state.leases.values()
        world.do(world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, ttl_ms, 2_030))
        (lease,) = world.manager.state.leases.values()
        assert lease.expires_at_unix_ms == end


def test_a_run_goes_on_past_the_longest_lease_and_ends_with_its_grant() -> None:
    world = LedgerWorld(WorkerFleetManager(WorkerFleetPolicy(lease_max_ms=50)))
    world.register(W1)
    world.grant("run-1", 2_000, 2_300)
    world.do(world.ask(W1, "run-1", 2_000, 50))
    (lease,) = world.manager.state.leases.values()
    for now in range(2_025, 2_300, 25):
        world.do(world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, None, now))
        assert world.manager.state.leases[lease.lease_id].expires_at_unix_ms == min(now + 50, 2_300)
    assert reasons(world.do(world.manager.reap(2_300))) == ["worker.ttl_expired"]


def test_a_session_that_proves_itself_again_keeps_its_lease_and_gets_a_new_epoch(
    world: LedgerWorld,
) -> None:
    lease = world.lease(W1, "run-1", 2_000)
    world.do(world.manager.start_lease(W1, 1, lease.lease_id, lease.fence, 2_000))
    decision = world.do(world.manager.register(attested(W1, now_unix_ms=2_100), 2_100, True))
    assert reasons(decision) == ["worker.reattested"]
    worker = world.worker(W1)
    assert (worker.session_epoch, worker.attestation_epoch, worker.work) == (2, 2, Work.BUSY)
    assert world.manager.state.live_lease_of(W1) is not None
    assert refused(world.manager.heartbeat(W1, 1, 9, 2_110)) is FleetReason.SESSION_STALE
    fenced = world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, None, 2_110)
    assert refused(fenced) is FleetReason.SESSION_STALE
    world.do(world.manager.heartbeat(W1, 2, 1, 2_110))
    world.do(world.manager.renew_lease(W1, 2, lease.lease_id, lease.fence, None, 2_110))


def test_an_older_session_cannot_take_the_worker_back(world: LedgerWorld) -> None:
    world.register(W1, 2_100, key="newer")
    back = world.manager.register(attested(W1, now_unix_ms=2_200), 2_200, True)
    assert refused(back) is FleetReason.SESSION_STALE
    world.do(world.manager.quarantine(W1, "alice", "why", 2_300))
    world.register(W1, 2_400, key="newest")  # candidate evidence
    back = world.manager.register(attested(W1, "newer", now_unix_ms=2_500), 2_500, True)
    assert refused(back) is FleetReason.SESSION_STALE
    unknown = world.manager.register(attested(W2), 2_500, True)
    assert refused(unknown) is FleetReason.WORKER_UNKNOWN


def test_proving_itself_again_while_quarantined_is_candidate_evidence(world: LedgerWorld) -> None:
    world.do(world.manager.quarantine(W1, "alice", "why", 2_100))
    decision = world.do(world.manager.register(attested(W1, now_unix_ms=2_200), 2_200, True))
    assert reasons(decision) == ["worker.candidate_attested"]
    assert world.worker(W1).admission is Admission.QUARANTINED
    released = world.manager.release(W1, "alice", "why", 2_300)
    assert refused(released) is FleetReason.RELEASE_NEEDS_KEY


def test_a_session_that_goes_on_does_not_clean_up_a_run_that_ended(world: LedgerWorld) -> None:
    """Invariant 8: its processes may still be there; a new session says that they are not."""
    world.lease(W1, "run-1", 2_000, 500)
    world.do(world.manager.reap(2_500))
    world.do(world.manager.register(attested(W1, now_unix_ms=2_600), 2_600, True))
    assert world.worker(W1).work is Work.ORPHANED
    world.grant("run-2", 2_600)
    assert refused(world.ask(W1, "run-2", 2_600)) is FleetReason.NO_WORKER
    world.register(W1, 2_700)
    world.do(world.ask(W1, "run-2", 2_700))


def test_a_kept_lease_is_shortened_to_shorter_evidence(world: LedgerWorld) -> None:
    """Invariant 5."""
    lease = world.lease(W1, "run-1", 2_000, 60_000)
    renewed = attested(W1, until_unix_ms=2_300, now_unix_ms=2_100)
    decision = world.do(world.manager.register(renewed, 2_100))
    assert reasons(decision) == ["worker.lease_shortened", "worker.registered"]
    assert world.manager.state.leases[lease.lease_id].expires_at_unix_ms == 2_300
    assert reasons(world.do(world.manager.reap(2_300))) == ["worker.ttl_expired"]


def test_completion_is_taken_until_the_last_millisecond_and_not_after(world: LedgerWorld) -> None:
    lease = world.lease(W1, "run-1", 2_000, 500)
    assert refused(world.complete(lease, 2_501)) is FleetReason.LEASE_ENDED
    assert reasons(world.do(world.complete(lease, 2_500))) == ["worker.completed"]


@pytest.mark.parametrize("verb", ["start_lease", "renew_lease"])
def test_start_and_renewal_end_before_the_lease_does(world: LedgerWorld, verb: str) -> None:
    lease = world.lease(W1, "run-1", 2_000, 500)
    more = (None,) if verb == "renew_lease" else ()
    command = getattr(world.manager, verb)
    outcome = command(W1, 1, lease.lease_id, lease.fence, *more, 2_500)
    assert refused(outcome) is FleetReason.LEASE_ENDED
    outcome = command(W1, 1, lease.lease_id, lease.fence + 1, *more, 2_100)
    assert refused(outcome) is FleetReason.STALE_FENCE
    world.do(command(W1, 1, lease.lease_id, lease.fence, *more, 2_499))


def test_starting_twice_is_refused(world: LedgerWorld) -> None:
    lease = world.lease(W1, "run-1", 2_000)
    world.do(world.manager.start_lease(W1, 1, lease.lease_id, lease.fence, 2_010))
    again = world.manager.start_lease(W1, 1, lease.lease_id, lease.fence, 2_020)
    assert refused(again) is FleetReason.COMMAND_INVALID


def test_a_heartbeat_number_must_grow(world: LedgerWorld) -> None:
    world.do(world.manager.heartbeat(W1, 1, 5, 2_010))
    assert refused(world.manager.heartbeat(W1, 1, 5, 2_020)) is FleetReason.HEARTBEAT_OLD
    ordinary = world.do(world.manager.heartbeat(W1, 1, 6, 2_030))
    assert not ordinary.durable  # heartbeats stay in memory


def test_a_late_heartbeat_orphans_the_lease_before_it_counts(world: LedgerWorld) -> None:
    """Invariant 8."""
    lease = world.lease(W1, "run-1", 2_000, 10**6)
    late = 2_000 + world.manager.policy.heartbeat_timeout_ms + 1
    decision = world.do(world.manager.heartbeat(W1, 1, 1, late))
    assert reasons(decision) == ["worker.heartbeat_stale", "worker.heartbeat"]
    assert world.manager.state.live_lease_of(W1) is None
    assert world.manager.lifecycle(W1, late) is S.ORPHANED
    assert refused(world.complete(lease, late)) is FleetReason.REATTEST_FIRST


def test_time_that_moves_back_counts_as_standing_still(world: LedgerWorld) -> None:
    """Invariant 11."""
    lease = world.lease(W1, "run-1", 2_000, 500)
    world.do(world.manager.reap(2_500))
    assert lease.lease_id not in world.manager.state.leases
    world.grant("run-2", 100)
    world.register(W1, 100)
    decision = world.do(world.ask(W1, "run-2", 100, 10))
    assert decision.at_unix_ms == 2_500


def test_capacity_is_kept() -> None:
    policy = WorkerFleetPolicy(max_workers=2, max_leases=1, leases_per_principal=1)
    world = LedgerWorld(WorkerFleetManager(policy))
    world.register(W1)
    world.register(W2)
    full = world.manager.register(attested(ulid(3)), 2_000)
    assert refused(full) is FleetReason.FLEET_FULL
    world.lease(W1, "run-1", 2_000)
    world.grant("run-2", 2_000)
    assert refused(world.ask(W2, "run-2", 2_000)) is FleetReason.LEASES_FULL


def test_what_the_policy_cannot_hold_it_refuses_to_promise() -> None:
    for wrong in (
        {"leases_per_worker": 2},
        {"least_binding_level": BindingLevel.CLAIMED},
        {"max_leases": 0},
    ):
        with pytest.raises(ValueError, match=r"leases|binding|limit"):
            WorkerFleetPolicy(**wrong)  # type: ignore[arg-type]


def test_a_fleet_that_asks_for_enforced_takes_no_worker_that_is_only_observed() -> None:
    policy = WorkerFleetPolicy(least_binding_level=BindingLevel.ENFORCED)
    world = LedgerWorld(WorkerFleetManager(policy))
    observed = world.manager.register(attested(W1), 2_000)
    assert refused(observed) is FleetReason.MISSING_BINDING
    assert "has the egress proxy binding observed; this fleet asks for enforced" in str(observed)
    enforced = attested(W1, binding_level=BindingLevel.ENFORCED)
    world.do(world.manager.register(enforced, 2_000))
    world.lease(W1, "run-1", 2_000)


def test_a_binding_below_the_least_alone_makes_a_worker_unassignable(worker: WorkerRecord) -> None:
    """Also of a worker that was admitted before the fleet asked for more."""
    assert assignable(worker, 3_000, 2_500, (), 60_000, BindingLevel.OBSERVED, 2_000)
    assert not assignable(worker, 3_000, 2_500, (), 60_000, BindingLevel.ENFORCED, 2_000)


def test_a_storm_outlasts_a_restart_and_no_longer_than_its_minute() -> None:
    world = LedgerWorld()
    for number in (1, 2, 3):
        world.register(ulid(number))
        world.do(world.manager.quarantine(ulid(number), "alice", "why", 3_000 * number))
    records = tuple(world.manager.state.workers.values())
    at_once, later = LedgerState(), LedgerState()
    at_once.load(records, 0, 9_000, 30_000)
    later.load(records, 0, 66_000, 30_000)
    assert at_once.recent_quarantines == world.manager.state.recent_quarantines
    assert list(later.recent_quarantines) == [9_000]


def test_a_key_of_an_earlier_quarantine_is_never_a_new_key_again() -> None:
    world = LedgerWorld()
    world.register(W1)
    for number, key in enumerate(("second", "third"), start=3):
        world.do(world.manager.quarantine(W1, "alice", "why", 1_000 * number))
        world.register(W1, 1_000 * number, key)
    world.do(world.manager.quarantine(W1, "alice", "why", 6_000))
    for key in ("second", "third"):
        assert refused(world.manager.register(attested(W1, key), 7_000)) is (
            FleetReason.WORKER_BANNED
        )
    world.register(W1, 7_000, "fourth")
    world.do(world.manager.release(W1, "alice", "looked at", 8_000))


def test_a_grant_that_runs_out_makes_the_time_durable() -> None:
    """Otherwise a restart with a clock that was set back would give it again."""
    world = LedgerWorld()
    world.grant("run-1", 2_000)
    (grant,) = world.manager.state.grants.values()
    before = world.manager.reap(grant.expires_at_unix_ms - 1)
    assert not before.durable
    after = world.manager.reap(grant.expires_at_unix_ms)
    assert after.durable
    assert (after.records, after.events) == ((), ())


@pytest.mark.parametrize(
    ("decision", "durable"),
    [
        (Decision(1, records=(FleetFreeze(True, 1),)), True),
        (Decision(1, events=(LedgerEvent(EventReason.STARTED_FLEET, "fleet"),)), True),
        (Decision(1, grants_ran_out=True), True),
        (Decision(1, beats=(Beat(W1, 1, 2),), reaped=True), False),
    ],
    ids=["a record", "an event", "a grant that ran out", "a beat"],
)
def test_a_record_an_event_or_a_grant_that_ran_out_is_written_before_anyone_is_told(
    decision: Decision, durable: bool
) -> None:
    assert decision.durable is durable
