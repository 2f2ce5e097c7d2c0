"""Who gets a lease and who does not, each guard by itself. Mutation found what was not said."""

from dataclasses import replace

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, Refusal
from tests.fakes.ledger_world import SCOPE, LedgerWorld, attested, reasons, refused, ulid

W1, W2 = ulid(1001), ulid(1002)
NOW = 2_000


def world_of(*workers: str, **policy: int | str) -> LedgerWorld:
    world = LedgerWorld(WorkerFleetManager(WorkerFleetPolicy(**policy)))  # type: ignore[arg-type]
    for worker_id in workers:
        world.register(worker_id)
    return world


def ask_with(world: LedgerWorld, grant_id: str | None, ttl_ms: int = 60_000) -> Outcome:
    order = LeaseOrder("run-1", ttl_ms, (), SCOPE)
    return world.manager.grant_lease(W1, 1, grant_id, order, ulid(77), "5" * 64, NOW)


def held_by(world: LedgerWorld) -> WorkerApprovalGrant:
    """A good grant of the run, in the ledger."""
    return world.manager.state.grants[world.grant("run-1", NOW, NOW + 1_000)]


def test_a_lease_of_one_millisecond_is_given_and_one_without_length_is_not() -> None:
    world = world_of(W1)
    grant_id = held_by(world).grant_id
    assert refused(ask_with(world, grant_id, 0)) is FleetReason.LEASE_INVALID
    world.do(ask_with(world, grant_id, 1))
    assert world.manager.state.leases[ulid(77)].expires_at_unix_ms == NOW + 1


@pytest.mark.parametrize(
    ("level", "read_only", "is_given"),
    [
        (BindingLevel.ENFORCED, True, True),
        (BindingLevel.OBSERVED, True, False),
        (BindingLevel.OBSERVED, False, True),
    ],
)
def test_a_read_only_workspace_is_given_to_isolated_workers_only(
    level: BindingLevel, read_only: bool, is_given: bool
) -> None:
    world = world_of()
    world.do(world.manager.register(attested(W1, binding_level=level), NOW))
    order = LeaseOrder("run-1", 1_000, (), replace(SCOPE, read_only=read_only))
    grant_id = held_by(world).grant_id
    outcome = world.manager.grant_lease(W1, 1, grant_id, order, ulid(77), "5" * 64, NOW)
    if is_given:
        world.do(outcome)
        assert world.manager.state.leases[ulid(77)].workspace_scope.read_only is read_only
    else:
        assert refused(outcome) is FleetReason.LEASE_INVALID


@pytest.mark.parametrize("approved", [False, True])
@pytest.mark.parametrize("asked", [False, True])
def test_what_is_approved_to_read_only_is_asked_for_so(approved: bool, asked: bool) -> None:
    """Who asks for less than was approved gets it; who asks for more gets nothing."""
    world = world_of()
    world.do(world.manager.register(attested(W1, binding_level=BindingLevel.ENFORCED), NOW))
    grant = replace(held_by(world), grant_id=ulid(50), read_only=approved)
    world.do(world.manager.create_grant(grant, "alice", NOW))
    order = LeaseOrder("run-1", 1_000, (), replace(SCOPE, read_only=asked))
    outcome = world.manager.grant_lease(W1, 1, ulid(50), order, ulid(77), "5" * 64, NOW)
    if asked or not approved:
        world.do(outcome)
        assert world.manager.state.leases[ulid(77)].workspace_scope.read_only is asked
    else:
        assert isinstance(outcome, Refusal)
        assert outcome.reason is FleetReason.LEASE_INVALID
        said = "run 'run-1' is approved to read only; ask for a read-only workspace"
        assert outcome.text.endswith(said)


@pytest.mark.parametrize("grant_id", [None, ulid(99)], ids=["none named", "never made"])
def test_a_run_without_a_grant_that_exists_gets_no_lease(grant_id: str | None) -> None:
    world = world_of(W1)
    held_by(world)
    expected = FleetReason.NO_GRANT if grant_id is None else FleetReason.GRANT_SPENT
    assert refused(ask_with(world, grant_id)) is expected


@pytest.mark.parametrize(
    "spoiled",
    [{"uses": 1}, {"withdrawn": True}, {"expires_at_unix_ms": NOW}],
    ids=["spent", "withdrawn", "expired this millisecond"],
)
def test_a_grant_that_is_not_usable_gives_no_lease_even_while_the_ledger_holds_it(
    spoiled: dict[str, int],
) -> None:
    """Invariant 1. The index drops such grants by itself; the guard does not rest on that."""
    world = world_of(W1)
    grant = held_by(world)
    world.manager.state.grants[grant.grant_id] = replace(grant, **spoiled)  # type: ignore[arg-type]
    assert refused(ask_with(world, grant.grant_id)) is FleetReason.GRANT_SPENT
    world.manager.state.grants[grant.grant_id] = grant
    world.do(ask_with(world, grant.grant_id))


def test_a_grant_for_one_worker_is_no_grant_for_another() -> None:
    world = world_of(W1, W2)
    grant = replace(held_by(world), grant_id=ulid(50), worker_id=W2)
    world.do(world.manager.create_grant(grant, "alice", NOW))
    assert refused(ask_with(world, grant.grant_id)) is FleetReason.NO_GRANT


@pytest.mark.parametrize("limit", ["max_leases", "leases_per_principal"])
def test_each_limit_of_leases_alone_is_reached_and_kept(limit: str) -> None:
    world = world_of(W1, W2, ulid(1003), **{limit: 2})
    for number, worker_id in enumerate((W1, W2), start=1):
        world.lease(worker_id, f"run-{number}", NOW)
    world.grant("run-3", NOW)
    assert refused(world.ask(ulid(1003), "run-3", NOW)) is FleetReason.LEASES_FULL


def test_a_worker_that_never_beat_gets_no_lease() -> None:
    world = world_of(W1)
    grant_id = held_by(world).grant_id
    del world.manager.state.beats[W1]
    assert refused(ask_with(world, grant_id)) is FleetReason.NO_WORKER


@pytest.mark.parametrize(
    ("lease", "fence", "reason"),
    [
        (0, 1, FleetReason.STALE_FENCE),
        (0, -1, FleetReason.STALE_FENCE),
        (1, 0, FleetReason.STALE_FENCE),
        (1, -1, FleetReason.STALE_FENCE),
        (1, 1, FleetReason.LEASE_UNKNOWN),
    ],
    ids=["fence ahead", "fence behind", "same fence, other id", "both behind", "both ahead"],
)
def test_only_the_very_lease_with_its_very_fence_is_worked_on(
    lease: int, fence: int, reason: FleetReason
) -> None:
    """Invariant 2."""
    world = world_of(W1)
    held = world.lease(W1, "run-1", NOW)
    named = (held.lease_id, ulid(55))[lease]
    manager = world.manager
    for outcome in (
        manager.start_lease(W1, 1, named, held.fence + fence, NOW),
        manager.renew_lease(W1, 1, named, held.fence + fence, None, NOW),
        manager.complete_lease(W1, 1, named, held.fence + fence, True, NOW),
    ):
        assert refused(outcome) is reason


def test_of_a_lease_that_ended_only_the_last_is_said_to_have_ended() -> None:
    world = world_of(W1)
    first = world.lease(W1, "run-1", NOW)
    world.do(world.complete(first, NOW))
    second = world.lease(W1, "run-2", NOW)
    assert refused(world.complete(first, NOW)) is FleetReason.STALE_FENCE
    world.do(world.complete(second, NOW))
    assert refused(world.complete(second, NOW)) is FleetReason.LEASE_ENDED
    assert refused(world.complete(first, NOW)) is FleetReason.STALE_FENCE
    for crossed in (replace(first, fence=second.fence), replace(second, fence=first.fence)):
        assert refused(world.complete(crossed, NOW)) is FleetReason.STALE_FENCE


def test_a_renewal_that_moves_no_end_writes_nothing() -> None:
    world = world_of(W1)
    lease = world.lease(W1, "run-1", NOW, 500)
    same = world.do(world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, 500, NOW))
    assert not same.durable
    later = world.do(world.manager.renew_lease(W1, 1, lease.lease_id, lease.fence, 501, NOW))
    assert reasons(later) == ["worker.lease_renewed"]


def test_a_report_after_the_end_asks_for_new_evidence_only_if_it_is_clean_and_orphaned() -> None:
    world = world_of(W1)
    lease = world.lease(W1, "run-1", NOW, 500)
    world.do(world.manager.reap(NOW + 500))
    assert refused(world.complete(lease, NOW + 500)) is FleetReason.REATTEST_FIRST
    assert refused(world.complete(lease, NOW + 500, False)) is FleetReason.LEASE_ENDED
    older = replace(lease, fence=lease.fence - 1)
    assert refused(world.complete(older, NOW + 500)) is FleetReason.STALE_FENCE
    world.do(world.manager.register(attested(W1, now_unix_ms=NOW + 500), NOW + 500))
    assert refused(world.complete(lease, NOW + 500)) is FleetReason.LEASE_ENDED


def test_an_operator_ends_a_live_lease_and_no_other() -> None:
    world = world_of(W1)
    lease = world.lease(W1, "run-1", NOW)
    revoke = world.manager.revoke_lease
    assert refused(revoke(ulid(55), "alice", "why", NOW)) is FleetReason.LEASE_UNKNOWN
    assert reasons(world.do(revoke(lease.lease_id, "alice", "why", NOW))) == [
        "worker.lease_revoked"
    ]
    assert refused(revoke(lease.lease_id, "alice", "why", NOW)) is FleetReason.LEASE_UNKNOWN


def test_a_lease_that_ends_while_its_workers_heartbeat_is_missed_ends_once() -> None:
    """Invariant 1, within one decision: what was ended in it is live no more."""
    world = world_of(W1)
    lease = world.lease(W1, "run-1", NOW, world.manager.policy.heartbeat_timeout_ms + 1)
    decision = world.do(world.manager.reap(lease.expires_at_unix_ms))
    assert reasons(decision) == ["worker.heartbeat_stale"]
    assert [notice.lease_id for notice in decision.notices] == [lease.lease_id]


def test_a_quarantine_names_the_lease_that_it_ended_and_none_where_there_was_none() -> None:
    world = world_of(W1)
    lease = world.lease(W1, "run-1", NOW)
    for lease_id in (lease.lease_id, None):
        *_, event = world.do(world.manager.quarantine(W1, "alice", "why", NOW)).events
        assert (event.reason.value, event.lease_id) == ("worker.quarantined_by_operator", lease_id)


@pytest.mark.parametrize("clean", [True, False])
def test_the_log_says_why_a_cleanup_failed_and_of_no_outputs_where_there_were_none(
    clean: bool,
) -> None:
    world = world_of(W1)
    lease = world.lease(W1, "run-1", NOW)
    assert "inputs_sha256sum" not in world.decisions[-1].events[0].detail
    *_, event = world.do(world.complete(lease, NOW, clean)).events
    why = {} if clean else {"why": "not all of the run is gone"}
    assert event.detail == {"fence": lease.fence, "run_id": "run-1", **why}


def test_a_scope_outside_the_fleets_root_gets_no_lease() -> None:
    world = world_of(W1, workspace_root="/elsewhere")
    assert refused(ask_with(world, held_by(world).grant_id)) is FleetReason.LEASE_INVALID


def test_a_run_that_has_a_live_lease_gets_no_other_by_another_approval() -> None:
    """Invariant 1."""
    world = world_of(W1, W2)
    world.lease(W1, "run-1", NOW)
    world.grant("run-1", NOW)
    assert refused(world.ask(W2, "run-1", NOW)) is FleetReason.RUN_LEASED


@pytest.mark.parametrize("way", ["quarantine", "cordon", "drain", "unknown", "other session"])
def test_nobody_gets_a_lease_who_may_not_take_one(way: str) -> None:
    """Invariants 3 and 7. The refusal says why, whatever else would refuse it, too."""
    world = world_of(W1)
    manager, grant_id = world.manager, held_by(world).grant_id
    worker_id, session, expected = W1, 1, FleetReason.DRAINING
    match way:
        case "quarantine":
            world.do(manager.quarantine(W1, "alice", "why", NOW))
            expected = FleetReason.WORKER_QUARANTINED
        case "cordon":
            world.do(manager.cordon(W1, "alice", "why", NOW))
        case "drain":
            world.do(manager.drain(W1, "alice", "why", 1_000, NOW))
        case "unknown":
            worker_id, expected = W2, FleetReason.WORKER_UNKNOWN
        case _:
            session, expected = 2, FleetReason.SESSION_STALE
    order = LeaseOrder("run-1", 1_000, (), SCOPE)
    outcome = manager.grant_lease(worker_id, session, grant_id, order, ulid(77), "5" * 64, NOW)
    assert refused(outcome) is expected


def test_nothing_is_done_with_a_lease_for_who_may_not_work() -> None:
    world = world_of(W1)
    lease = world.lease(W1, "run-1", NOW)
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    manager = world.manager
    for worker_id, session, reason in (
        (W1, 1, FleetReason.WORKER_QUARANTINED),
        (W2, 1, FleetReason.WORKER_UNKNOWN),
    ):
        for outcome in (
            manager.start_lease(worker_id, session, lease.lease_id, lease.fence, NOW),
            manager.renew_lease(worker_id, session, lease.lease_id, lease.fence, None, NOW),
            manager.complete_lease(worker_id, session, lease.lease_id, lease.fence, True, NOW),
        ):
            assert refused(outcome) is reason
