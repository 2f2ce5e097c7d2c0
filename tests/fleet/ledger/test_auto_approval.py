"""Approvals by rule: who gets one, how many there are, and what takes them back."""

from dataclasses import replace

import pytest

from palyra_fleet.leases.approval_rules import HERE, ApprovalRules, RunAsked
from palyra_fleet.leases.records import WorkerApprovalGrant
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.decision import Decision, EnrolledKey, FleetFreeze
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.rule_counts import HOUR_MS, RuleCounts
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.keys import thumbprint_sha256
from tests.fakes.approval_rules import NO_RULES, OTHER_RULES, RULE, RULES, rules_of
from tests.fakes.ledger_world import LedgerWorld, attested, key_of, reasons, refused, ulid

W1, W2 = ulid(1001), ulid(1002)
NOW = 2_000


def world_of(*workers: str) -> LedgerWorld:
    world = LedgerWorld(WorkerFleetManager(WorkerFleetPolicy(heartbeat_timeout_ms=10**10)))
    for worker_id in workers or (W1,):
        world.register(worker_id)
    return world


def ask(
    world: LedgerWorld,
    rules: ApprovalRules = RULES,
    run: str = "run-1",
    worker_id: str = W1,
    now: int = NOW,
    tool: str = "tool",
) -> Outcome:
    worker = world.manager.state.workers.get(worker_id)
    session = 1 if worker is None else worker.session_epoch
    asked = RunAsked(run, tool, "profile")
    return world.manager.approve_by_rule(rules, worker_id, session, asked, world.next_id(), now)


def given(outcome: Outcome) -> WorkerApprovalGrant:
    assert isinstance(outcome, Decision), outcome
    return next(one for one in outcome.records if isinstance(one, WorkerApprovalGrant))


def lease_by_rule(world: LedgerWorld, run: str, worker_id: str, now: int) -> None:
    world.do(ask(world, OTHER_RULES, run, worker_id, now))
    world.do(world.ask(worker_id, run, now))


def test_an_approval_by_rule_says_which_rule_of_which_file_and_is_for_its_worker_alone() -> None:
    world = world_of()
    decision = world.do(ask(world))
    grant = given(decision)
    assert (grant.worker_id, grant.principal) == (W1, f"identity-of-{W1}")
    assert (grant.approved_by, grant.expires_at_unix_ms) == ("rule:rule-1", NOW + RULE.lease_ms)
    (event,) = decision.events
    assert (event.reason, event.actor) == ("grant.created", "rule:rule-1")
    assert event.detail["rule"] == "rule-1"
    assert event.detail["rule_sha256"] == RULE.sha256
    assert event.detail["rules_sha256"] == "f" * 64
    world.do(world.ask(W1, "run-1", NOW))
    (lease,) = world.manager.state.leases.values()
    assert (lease.rule_id, lease.grant_id) == ("rule-1", grant.grant_id)


@pytest.mark.parametrize("rules", [NO_RULES, ApprovalRules(), rules_of(replace(RULE, tools=()))])
def test_without_a_rule_that_fits_an_operator_has_to(rules: ApprovalRules) -> None:
    assert refused(ask(world_of(), rules)) is FleetReason.NO_GRANT


def test_the_lease_of_an_approval_by_rule_ends_with_the_rule_at_the_latest() -> None:
    world = world_of()
    soon = rules_of(replace(RULE, until_unix_ms=NOW + 7))
    assert given(world.do(ask(world, soon))).expires_at_unix_ms == NOW + 7
    world.do(world.ask(W1, "run-1", NOW))
    (lease,) = world.manager.state.leases.values()
    assert lease.expires_at_unix_ms == NOW + 7
    assert refused(ask(world_of(), soon, now=NOW + 7)) is FleetReason.NO_GRANT


def test_an_approval_by_rule_ends_with_the_certificate_of_its_worker() -> None:
    world = LedgerWorld()
    known = replace(attested(W1), known_until_unix_ms=NOW + 5)
    world.do(world.manager.register(known, NOW))
    assert given(world.do(ask(world))).expires_at_unix_ms == NOW + 5


def test_a_storm_stops_every_rule() -> None:
    world = world_of()
    world.manager.state.freeze = FleetFreeze(True, NOW)
    assert refused(ask(world)) is FleetReason.STORM


def test_who_may_not_work_is_approved_nothing() -> None:
    world = world_of(W1, W2)
    world.do(world.manager.cordon(W1, "alice", "why", NOW))
    assert refused(ask(world)) is FleetReason.DRAINING
    world.do(world.manager.quarantine(W2, "alice", "why", NOW))
    assert refused(ask(world, worker_id=W2)) is FleetReason.WORKER_QUARANTINED
    assert refused(ask(world, worker_id=ulid(1003))) is FleetReason.WORKER_UNKNOWN


def test_who_is_not_bound_just_now_is_approved_nothing() -> None:
    world = world_of()
    world.do(world.manager.hear_policy("proxy-1", "another", NOW))
    assert refused(ask(world)) is FleetReason.BINDING_STALE


def test_a_run_that_is_approved_or_leased_is_not_approved_once_more() -> None:
    world = world_of(W1, W2)
    world.do(ask(world, OTHER_RULES))
    assert refused(ask(world, OTHER_RULES, worker_id=W2)) is FleetReason.COMMAND_INVALID
    world.do(world.ask(W1, "run-1", NOW))
    assert refused(ask(world, OTHER_RULES, worker_id=W2)) is FleetReason.RUN_LEASED
    assert refused(ask(world, OTHER_RULES, "run-2")) is FleetReason.WORKER_LEASED


def test_at_once_counts_what_is_unused_and_what_is_live_and_not_what_has_ended() -> None:
    world = world_of(W1, W2)
    world.do(ask(world))
    assert refused(ask(world, run="run-2", worker_id=W2)) is FleetReason.RULE_LIMIT
    world.do(world.ask(W1, "run-1", NOW))
    assert refused(ask(world, run="run-2", worker_id=W2)) is FleetReason.RULE_LIMIT
    (lease,) = world.manager.state.leases.values()
    world.do(world.complete(lease, NOW))
    world.do(ask(world, run="run-2", worker_id=W2))
    assert audit(world.manager.state, world.manager.policy) == ()


def test_an_approval_that_ran_out_unused_leaves_its_place() -> None:
    world = world_of(W1, W2)
    end = given(world.do(ask(world))).expires_at_unix_ms
    world.do(world.manager.reap(end))
    world.do(ask(world, run="run-2", worker_id=W2, now=end))


def test_one_of_two_unused_approvals_that_goes_leaves_the_other_counted() -> None:
    world = world_of(W1, W2)
    first = given(world.do(ask(world, OTHER_RULES)))
    world.do(ask(world, OTHER_RULES, "run-2", W2))
    held = world.manager.state.grants[first.grant_id]
    world.do(world.manager.withdraw_grant(held, "alice", "why", NOW))
    assert world.manager.state.rules.at_once("rule-1") == 1


def test_after_a_start_only_what_can_still_be_used_counts_as_out() -> None:
    world = world_of()
    unused = given(world.do(ask(world)))
    for uses, counted in ((0, 1), (1, 0)):
        started = WorkerFleetManager(world.manager.policy)
        started.state.load((replace(unused, uses=uses),), 0, NOW, 1)
        assert started.state.rules.at_once("rule-1") == counted
        assert started.state.rules.in_the_last_hour("rule-1", NOW) == 1


def test_uses_count_for_an_hour_to_the_millisecond_whatever_became_of_them() -> None:
    world = world_of()
    world.manager.policy = replace(
        world.manager.policy,
        lease_binding_max_age_ms=10**10,
        binding_max_age_ms=10**10,
        attestation_max_ms=10**10,
    )
    world.register(W1)
    for number in range(RULE.uses_per_hour):
        grant = given(world.do(ask(world, run=f"run-{number}", now=NOW + number)))
        held = world.manager.state.grants[grant.grant_id]
        world.do(world.manager.withdraw_grant(held, "alice", "why", NOW + number))
    hour = NOW + HOUR_MS
    assert refused(ask(world, run="run-9", now=hour - 1)) is FleetReason.RULE_LIMIT
    world.do(ask(world, run="run-9", now=hour))


def test_of_what_a_rule_gave_only_the_last_hour_is_kept() -> None:
    grant = given(ask(world_of()))
    assert grant.rule is not None
    counts = RuleCounts()
    for number, at_unix_ms in enumerate((NOW, NOW + 1, NOW + HOUR_MS)):
        mark = replace(grant.rule, at_unix_ms=at_unix_ms)
        counts.take_grant(replace(grant, grant_id=ulid(number), rule=mark), usable=False)
    assert counts.given == {"rule-1": {ulid(1): NOW + 1, ulid(2): NOW + HOUR_MS}}


def test_a_lease_by_rule_counts_once_however_often_it_is_written() -> None:
    world = world_of()
    lease_by_rule(world, "run-1", W1, NOW)
    (lease,) = world.manager.state.leases.values()
    world.do(world.manager.start_lease(W1, 1, lease.lease_id, lease.fence, NOW))
    assert world.manager.state.rules.at_once("rule-1") == 1


def test_the_next_rule_that_fits_approves_when_the_first_is_full() -> None:
    world = world_of(W1, W2)
    both = rules_of(RULE, replace(RULE, rule_id="rule-2"))
    world.do(ask(world, both))
    second = given(world.do(ask(world, both, "run-2", W2)))
    assert second.approved_by == "rule:rule-2"


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (RULES, True),
        (rules_of(replace(RULE, rule_id="new"), RULE), True),
        (NO_RULES, False),
        (OTHER_RULES, False),
    ],
    ids=["the same", "one more", "none", "another limit"],
)
def test_what_a_rule_gave_that_is_not_there_as_it_was_is_taken_back(
    rules: ApprovalRules, kept: bool
) -> None:
    world = world_of()
    grant_id = given(world.do(ask(world))).grant_id
    by_alice = world.grant("run-2", NOW)
    decision = world.do(world.manager.rules_changed(rules, NOW))
    taken = [] if kept else ["grant.withdrawn"]
    assert reasons(decision) == ["fleet.approval_rules_in_force", *taken]
    assert (grant_id in world.manager.state.grants) is kept
    assert by_alice in world.manager.state.grants
    assert refused(world.ask(W1, "run-3", NOW)) is FleetReason.NO_GRANT
    outcome = world.ask(W1, "run-1", NOW)
    assert isinstance(outcome, Decision) is kept


def test_a_lease_that_runs_keeps_its_end_when_its_rule_goes() -> None:
    world = world_of()
    lease_by_rule(world, "run-1", W1, NOW)
    world.do(world.manager.rules_changed(NO_RULES, NOW))
    (lease,) = world.manager.state.leases.values()
    assert lease.expires_at_unix_ms == NOW + RULE.lease_ms


def test_only_the_name_of_an_enrolled_launcher_that_vouched_counts() -> None:
    world = world_of()
    by_name = rules_of(replace(RULE, identities=(), launchers=("local",)))
    assert refused(ask(world, by_name)) is FleetReason.NO_GRANT
    key = EnrolledKey("launcher", "local", key_of("local"))
    vouched = replace(attested(W1), launcher_sha256=thumbprint_sha256(key.public_key))
    world.do(world.manager.register(vouched, NOW))
    assert refused(ask(world, by_name)) is FleetReason.NO_GRANT
    world.manager.state.enrolled["launcher", "local"] = replace(key, revoked_at_unix_ms=1)
    assert refused(ask(world, by_name)) is FleetReason.NO_GRANT
    world.manager.state.enrolled["proxy", "local"] = replace(key, kind="proxy")
    world.manager.state.enrolled["launcher", "local"] = EnrolledKey(
        "launcher", "local", key_of("another")
    )
    assert refused(ask(world, by_name)) is FleetReason.NO_GRANT
    world.manager.state.enrolled["launcher", "local"] = key
    world.do(ask(world, by_name))


@pytest.mark.parametrize("device_id", [None, "device-1"], ids=["here", "a paired device"])
def test_a_rule_that_names_a_machine_fits_workers_of_that_machine_alone(
    device_id: str | None,
) -> None:
    world = world_of()
    world.do(world.manager.register(replace(attested(W1), device_id=device_id), NOW))
    mine, other = ("device-1", HERE) if device_id else (HERE, "device-1")
    elsewhere = rules_of(replace(RULE, machines=(other,)))
    assert refused(ask(world, elsewhere)) is FleetReason.NO_GRANT
    world.do(ask(world, rules_of(replace(RULE, machines=(mine,)))))


def test_a_digest_that_only_the_worker_tells_fits_no_rule_that_names_it() -> None:
    world = world_of()
    by_digest = rules_of(replace(RULE, artifact_digests=("c" * 64,)))
    world.do(world.manager.register(replace(attested(W1), measured=False), NOW))
    assert refused(ask(world, by_digest)) is FleetReason.NO_GRANT
    world.do(world.manager.register(attested(W1), NOW))
    world.do(ask(world, by_digest))


def test_the_auditor_sees_a_wrong_count() -> None:
    world = world_of()
    world.do(ask(world))
    world.manager.state.rules.unused.clear()
    told = audit(world.manager.state, world.manager.policy)
    assert told == ("what approval rules have out is counted wrong",)
