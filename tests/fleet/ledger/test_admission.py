"""Who comes in and who comes back, each guard at its boundary. Mutation found what was not said."""

from dataclasses import replace

import pytest

from palyra_fleet.ledger.decision import Tombstone, TombstoneKind
from palyra_fleet.ledger.facts import Work
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, Refusal
from tests.fakes.ledger_world import LedgerWorld, attested, reasons, refused, ulid

W1, W2 = ulid(1001), ulid(1002)
NOW = 2_000


@pytest.mark.parametrize(
    ("before", "issued", "key", "refusal"),
    [
        (5, 5, "another", FleetReason.KEY_MISMATCH),
        (5, 4, "another", FleetReason.KEY_MISMATCH),
        (5, 6, "another", None),
        (5, 4, "key", None),
        (None, 4, "another", None),
        (5, None, "another", None),
    ],
    ids=["the same", "an older", "a newer", "same key", "first of its kind", "of another kind"],
)
@pytest.mark.parametrize("confined", [False, True])
def test_a_credential_admits_another_key_only_if_it_was_issued_later(
    before: int | None, issued: int | None, key: str, refusal: FleetReason | None, confined: bool
) -> None:
    world = LedgerWorld()
    first = replace(attested(W1), credential_issued_at_unix_ms=before)
    world.do(world.manager.register(first, NOW))
    if confined:
        world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    again = replace(attested(W1, key), credential_issued_at_unix_ms=issued)
    outcome = world.manager.register(again, NOW)
    if refusal is None:
        world.do(outcome)
    else:
        assert refused(outcome) is refusal


def test_evidence_is_good_until_its_last_millisecond_and_not_in_it() -> None:
    world = LedgerWorld()
    late = world.manager.register(attested(W1, until_unix_ms=NOW), NOW)
    assert refused(late) is FleetReason.ATTESTATION_EXPIRED
    world.do(world.manager.register(attested(W1, until_unix_ms=NOW + 1), NOW))


def test_a_key_or_an_identity_of_another_worker_is_taken() -> None:
    world = LedgerWorld()
    world.register(W1)
    mine = attested(W1)
    same_identity = attested(W2, identity=mine.evidence_identity)
    same_key = replace(attested(W2), public_key=mine.public_key, key_sha256=mine.key_sha256)
    new_identity = attested(W1, identity="another")
    for result in (same_identity, same_key, new_identity):
        assert refused(world.manager.register(result, NOW)) is FleetReason.WORKER_EXISTS


def test_a_full_fleet_still_takes_new_evidence_of_its_own() -> None:
    world = LedgerWorld(WorkerFleetManager(WorkerFleetPolicy(max_workers=1)))
    world.register(W1)
    world.register(W1, key="newer")
    assert refused(world.manager.register(attested(W2), NOW)) is FleetReason.FLEET_FULL


def test_a_release_needs_candidate_evidence_that_still_holds() -> None:
    world = LedgerWorld()
    world.register(W1)
    assert refused(world.manager.release(W1, "bob", "why", NOW)) is FleetReason.NOT_QUARANTINED
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    none = world.manager.release(W1, "bob", "why", NOW)
    assert refused(none) is FleetReason.RELEASE_NEEDS_EVIDENCE
    world.do(world.manager.register(attested(W1, "newer", until_unix_ms=NOW + 9), NOW))
    late = world.manager.release(W1, "bob", "why", NOW + 9)
    assert refused(late) is FleetReason.RELEASE_NEEDS_EVIDENCE
    world.do(world.manager.release(W1, "bob", "why", NOW + 8))


def test_evidence_that_ends_with_the_lease_does_not_shorten_it() -> None:
    world = LedgerWorld()
    world.register(W1)
    lease = world.lease(W1, "run-1", NOW, 500)
    same_end = attested(W1, until_unix_ms=lease.expires_at_unix_ms)
    assert reasons(world.do(world.manager.register(same_end, NOW))) == ["worker.registered"]


def test_evicting_asks_for_a_worker_that_is_known_free_and_not_held() -> None:
    world = LedgerWorld()
    evict = world.manager.evict
    assert refused(evict(W1, "alice", "why", NOW)) is FleetReason.WORKER_UNKNOWN
    for number, worker_id in enumerate((W1, W2, ulid(1003), ulid(1004))):
        world.register(worker_id, key=f"key-{number}")
    world.do(world.manager.ban(W1, "alice", "why", NOW))
    world.do(world.manager.quarantine(W2, "alice", "why", NOW))
    world.lease(ulid(1003), "run-1", NOW)
    assert refused(evict(W1, "alice", "why", NOW)) is FleetReason.WORKER_BANNED
    assert refused(evict(W2, "alice", "why", NOW)) is FleetReason.WORKER_QUARANTINED
    assert refused(evict(ulid(1003), "alice", "why", NOW)) is FleetReason.WORKER_LEASED
    world.do(evict(ulid(1004), "alice", "why", NOW))
    assert ulid(1004) not in world.manager.state.workers


@pytest.mark.parametrize("device_id", [None, ulid(7)])
def test_a_registration_records_the_machine_that_it_came_from(device_id: str | None) -> None:
    world = LedgerWorld()
    told = world.do(world.manager.register(replace(attested(W1), device_id=device_id), NOW))
    (event,) = told.events
    assert event.detail.get("device_id") == device_id
    assert ("device_id" in event.detail) == (device_id is not None)


def test_a_quarantined_workers_newest_credential_counts() -> None:
    world = LedgerWorld()
    first, newest = (
        replace(attested(W1, str(at)), credential_issued_at_unix_ms=at) for at in (5, 9)
    )
    world.do(world.manager.register(first, NOW))
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    world.do(world.manager.register(newest, NOW))
    stolen = replace(attested(W1, "another"), credential_issued_at_unix_ms=7)
    assert refused(world.manager.register(stolen, NOW)) is FleetReason.KEY_MISMATCH


def test_evidence_is_believed_no_longer_than_the_policy_says() -> None:
    policy = WorkerFleetPolicy(attestation_max_ms=100, binding_max_age_ms=500)
    world = LedgerWorld(WorkerFleetManager(policy))
    world.register(W1, NOW)
    assert world.worker(W1).proof.attested_until_unix_ms == NOW + 100
    bound_before = attested(W1, now_unix_ms=NOW - 450)
    world.do(world.manager.register(bound_before, NOW))
    assert world.worker(W1).proof.attested_until_unix_ms == NOW + 50


def test_nothing_is_done_for_or_with_a_banned_worker() -> None:
    """Invariant 3."""
    world = LedgerWorld()
    world.register(W1)
    world.do(world.manager.ban(W1, "alice", "why", NOW))
    manager = world.manager
    for outcome in (
        manager.heartbeat(W1, 1, 1, NOW),
        manager.release(W1, "alice", "why", NOW),
        manager.reverify(W1, "alice", "why", NOW),
        manager.quarantine(W1, "alice", "why", NOW),
        manager.ban(W1, "alice", "why", NOW),
        manager.uncordon(W1, "alice", "why", NOW),
    ):
        assert refused(outcome) is FleetReason.WORKER_BANNED


def test_who_comes_is_told_what_of_it_is_banned() -> None:
    world = LedgerWorld()
    world.register(W1)
    world.do(world.manager.ban(W1, "alice", "why", NOW))
    first = attested(W1)
    same_key = replace(attested(W2), public_key=first.public_key, key_sha256=first.key_sha256)
    for comes, told in (
        (first, "this worker is banned"),
        (same_key, "this worker's key is banned"),
        (attested(W2, identity=first.evidence_identity), "this worker's identity is banned"),
    ):
        outcome = world.manager.register(comes, NOW)
        assert isinstance(outcome, Refusal) and outcome.text == told


def test_a_registration_with_a_new_key_ends_the_lease_of_the_process_before() -> None:
    world = LedgerWorld()
    world.register(W1)
    world.lease(W1, "run-1", NOW)
    assert reasons(world.register(W1)) == ["worker.registered"]
    told = world.register(W1, key="newer")
    assert reasons(told) == ["worker.lease_revoked", "worker.registered"]
    assert world.manager.state.live_lease_of(W1) is None


def test_a_first_registration_counts_itself_when_it_says_when_it_is_missed() -> None:
    policy = WorkerFleetPolicy(heartbeat_timeout_ms=1, heartbeats_per_second=1)
    world = LedgerWorld(WorkerFleetManager(policy))
    for _ in range(2):  # the second is the same worker's: still one
        world.register(W1)
        assert world.manager.state.beats[W1].deadline_unix_ms == NOW + 6_000


def failed() -> LedgerWorld:
    """A worker whose run was not cleaned up: its work failed, and it is held."""
    world = LedgerWorld()
    world.register(W1)
    world.do(world.complete(world.lease(W1, "run-1", NOW), NOW, clean=False))
    return world


@pytest.mark.parametrize("clean", [True, False])
def test_only_failed_work_outlasts_a_release(clean: bool) -> None:
    world = failed()
    if clean:
        world = LedgerWorld()
        world.register(W1)
        world.lease(W1, "run-1", NOW)
        world.do(world.manager.quarantine(W1, "alice", "why", NOW))
        assert world.worker(W1).work is Work.ORPHANED
    world.register(W1, key="newer")
    world.do(world.manager.release(W1, "bob", "why", NOW))
    worker = world.worker(W1)
    assert worker.work is (Work.IDLE if clean else Work.FAILED)
    assert worker.cleanup_verified is clean


def test_reverifying_takes_failed_work_of_a_worker_that_is_not_held() -> None:
    world = failed()
    reverify = world.manager.reverify
    assert refused(reverify(W2, "bob", "why", NOW)) is FleetReason.WORKER_UNKNOWN
    assert refused(reverify(W1, "bob", "why", NOW)) is FleetReason.WORKER_QUARANTINED
    world.register(W1, key="newer")
    world.do(world.manager.release(W1, "bob", "why", NOW))
    assert reasons(world.do(reverify(W1, "bob", "why", NOW))) == ["worker.reverified_by_operator"]
    assert (world.worker(W1).work, world.worker(W1).cleanup_verified) == (Work.IDLE, True)
    assert refused(reverify(W1, "bob", "why", NOW)) is FleetReason.COMMAND_INVALID


def test_reverifying_takes_evidence_that_is_newer_than_the_failure() -> None:
    """No command leads there: the guard does not rest on that."""
    world = LedgerWorld()
    world.register(W1)
    spoiled = replace(world.worker(W1), work=Work.FAILED, failed_at_attestation_epoch=1)
    world.manager.state.workers[W1] = spoiled
    again = world.manager.reverify(W1, "bob", "why", NOW)
    assert refused(again) is FleetReason.REATTEST_FIRST


def test_candidate_evidence_that_is_not_newer_than_the_quarantine_releases_nobody() -> None:
    """No command leads there: the guard does not rest on that."""
    world = LedgerWorld()
    world.register(W1)
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    world.register(W1, key="newer")
    held = world.worker(W1)
    assert held.candidate is not None and held.quarantine is not None
    epoch = held.quarantine.attestation_epoch
    old = replace(held, candidate=replace(held.candidate, attestation_epoch=epoch))
    world.manager.state.workers[W1] = old
    outcome = world.manager.release(W1, "bob", "why", NOW)
    assert refused(outcome) is FleetReason.RELEASE_NEEDS_EVIDENCE


def test_a_ban_keeps_out_the_key_of_the_candidate_evidence_too() -> None:
    world = LedgerWorld()
    world.register(W1)
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    world.register(W1, key="newer")
    world.do(world.manager.ban(W1, "alice", "why", NOW))
    for key in ("key", "newer"):
        mark = Tombstone(TombstoneKind.KEY, attested(W1, key).key_sha256)
        assert mark in world.manager.state.tombstones
