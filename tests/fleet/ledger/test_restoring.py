"""What a snapshot becomes beside the state that it replaces, each guard by itself.

The whole way, through files, is in tests/fleet/store/test_snapshots.py.
"""

from dataclasses import replace

import pytest

from palyra_fleet.ledger import freezing
from palyra_fleet.ledger.decision import (
    Decision,
    EnrolledKey,
    FleetFreeze,
    Tombstone,
    TombstoneKind,
)
from palyra_fleet.ledger.facts import Admission, WorkerRecord
from palyra_fleet.ledger.restoring import Confined, restored
from tests.fakes.ledger_world import LedgerWorld, attested, key_of, reasons, ulid

W1, W2 = ulid(1001), ulid(1002)
NOW = 2_000
NOBODY = Confined((), frozenset())
KEY = EnrolledKey("proxy", "proxy-1", key_of("proxy"), seq=5)
GONE = replace(KEY, revoked_at_unix_ms=1_000)


def snapshot_of(*keys: EnrolledKey) -> LedgerWorld:
    world = LedgerWorld()
    world.do(Decision(1_000, records=keys))
    return world


def put_back(
    world: LedgerWorld, held: Confined | None, workers_may_return: bool = False
) -> Decision:
    return world.do(restored(world.manager.state, held, workers_may_return, {}, NOW))


@pytest.mark.parametrize("may_return", [True, False])
def test_without_the_state_that_followed_everybody_is_held_unless_an_operator_says_otherwise(
    may_return: bool,
) -> None:
    world = snapshot_of()
    world.register(W1)
    world.register(W2)
    world.do(world.manager.quarantine(W2, "alice", "why", NOW))
    told = put_back(world, None, may_return)
    newly = [] if may_return else ["worker.quarantined_by_restore"]
    assert reasons(told) == [*newly, "fleet.restored"]
    assert world.worker(W1).confined is not may_return
    assert world.worker(W2).confined


def test_with_it_only_those_are_held_that_it_holds() -> None:
    after = snapshot_of()
    after.register(W1)
    after.register(W2)
    after.do(after.manager.quarantine(W2, "alice", "why", NOW))
    held = Confined.of(after.manager.state)
    assert [worker.worker_id for worker in held.workers] == [W2]
    world = snapshot_of()
    world.register(W1)
    world.register(W2)
    put_back(world, held, workers_may_return=True)
    assert (world.worker(W1).admission, world.worker(W2).admission) == (
        Admission.ACTIVE,
        Admission.QUARANTINED,
    )


@pytest.mark.parametrize("frozen", [True, False])
def test_leases_are_frozen_where_they_were(frozen: bool) -> None:
    told = put_back(snapshot_of(), replace(NOBODY, freeze=FleetFreeze(frozen, 7, frozen, "alice")))
    freezes = [record for record in told.records if isinstance(record, FleetFreeze)]
    assert freezes == ([FleetFreeze(True, NOW, True, "alice")] if frozen else [])


def test_a_freeze_that_the_snapshot_has_is_kept_beside_a_narrower_one() -> None:
    world = snapshot_of()
    world.do(freezing.freeze(world.manager.state, True, "alice", "why", NOW))
    told = put_back(world, replace(NOBODY, freeze=FleetFreeze(True, 7)))
    assert FleetFreeze(True, NOW, True, "alice") in told.records


@pytest.mark.parametrize(
    ("known", "after", "expected"),
    [
        ((), KEY, None),  # what was enrolled since is not trusted by a restore
        ((), GONE, GONE),
        ((replace(KEY, name="other"),), GONE, None),  # a key has one place
        ((KEY,), replace(KEY, seq=9), replace(KEY, seq=9)),
        ((KEY,), replace(KEY, last_sha256="1" * 64), replace(KEY, last_sha256="1" * 64)),
        ((KEY,), replace(KEY, seq=4), KEY),
        ((KEY,), replace(GONE, seq=9), replace(GONE, seq=9)),
        ((KEY,), replace(GONE, seq=4), GONE),
        ((GONE,), replace(KEY, seq=9), GONE),
        ((KEY,), replace(GONE, public_key=key_of("another")), KEY),
    ],
    ids=[
        "enrolled since",
        "taken back since",
        "of another name",
        "further",
        "as far by another way",
        "behind",
        "taken back further",
        "taken back behind",
        "taken back before",
        "another key",
    ],
)
def test_no_key_is_trusted_that_the_state_that_followed_does_not_trust(
    known: tuple[EnrolledKey, ...], after: EnrolledKey, expected: EnrolledKey | None
) -> None:
    world = snapshot_of(*known)
    put_back(world, replace(NOBODY, enrolled=(after,)))
    assert world.manager.state.enrolled.get(("proxy", "proxy-1")) == expected


def confined(worker_id: str, key: str, identity: str | None = None) -> WorkerRecord:
    world = LedgerWorld()
    world.do(world.manager.register(attested(worker_id, key, identity), NOW))
    world.do(world.manager.quarantine(worker_id, "alice", "why", NOW))
    return world.worker(worker_id)


def with_key_of(worker: WorkerRecord, other: str) -> WorkerRecord:
    sha256 = attested(other).key_sha256
    return replace(worker, proof=replace(worker.proof, key_sha256=sha256))


def test_who_shares_key_or_identity_with_a_held_stranger_is_held_and_the_stranger_stays_out() -> (
    None
):
    of_w2 = f"identity-of-{W2}"
    for stranger, identity_too in (
        (with_key_of(confined(W1, "key"), W2), True),
        (confined(W1, "key", of_w2), False),  # it is the other's: that one may come back with it
    ):
        world = snapshot_of()
        world.register(W2)
        put_back(world, replace(NOBODY, workers=(stranger,)), workers_may_return=True)
        assert world.worker(W2).confined
        marks = world.manager.state.tombstones
        assert Tombstone(TombstoneKind.WORKER, W1) in marks
        identity = Tombstone(TombstoneKind.IDENTITY, stranger.evidence_identity)
        assert (identity in marks) is identity_too
        assert W1 not in world.manager.state.workers


def test_a_held_stranger_that_shares_nothing_comes_as_it_is_but_its_evidence_is_over() -> None:
    world = snapshot_of()
    world.register(W2)
    stranger = confined(W1, "key")
    put_back(world, replace(NOBODY, workers=(stranger,)), workers_may_return=True)
    over = replace(stranger.proof, attested_until_unix_ms=NOW)
    assert stranger.proof.attested_until_unix_ms > NOW
    assert world.worker(W1) == replace(stranger, proof=over)
    assert not world.worker(W2).confined


@pytest.mark.parametrize("banned_in", ["snapshot", "after", "neither"])
def test_a_ban_of_either_stays(banned_in: str) -> None:
    world = snapshot_of()
    world.register(W1)
    world.do(world.manager.quarantine(W1, "alice", "older", NOW))
    if banned_in == "snapshot":
        world.do(world.manager.ban(W1, "alice", "why", NOW))
    after = replace(confined(W1, "key"), attestation_epoch=7, session_epoch=8, last_fence=9)
    if banned_in == "after":
        after = replace(after, admission=Admission.BANNED)
    marks = set(world.manager.state.tombstones)
    told = put_back(world, replace(NOBODY, workers=(after,)))
    assert reasons(told) == ["fleet.restored"]  # it was held before
    assert world.manager.state.tombstones == marks  # its own key and identity may come back
    worker = world.worker(W1)
    assert worker.admission is (
        Admission.QUARANTINED if banned_in == "neither" else Admission.BANNED
    )
    assert worker.quarantine == after.quarantine
    assert (worker.attestation_epoch, worker.session_epoch, worker.last_fence) == (7, 8, 9)


def test_numbers_that_went_further_in_the_snapshot_stay() -> None:
    world = snapshot_of()
    world.register(W1)
    further = replace(world.worker(W1), attestation_epoch=7, session_epoch=8, last_fence=9)
    world.manager.state.workers[W1] = further
    put_back(world, replace(NOBODY, workers=(confined(W1, "key"),)))
    worker = world.worker(W1)
    assert (worker.attestation_epoch, worker.session_epoch, worker.last_fence) == (7, 8, 9)


def test_keys_and_identity_that_a_held_worker_had_since_stay_out() -> None:
    world = snapshot_of()
    world.register(W1)
    newer = confined(W1, "newer", "another identity")
    after = replace(newer, candidate=confined(W1, "newest").proof)
    put_back(world, replace(NOBODY, workers=(after,)))
    marks = world.manager.state.tombstones
    for key, there in (("newer", True), ("newest", True), ("key", False)):
        mark = Tombstone(TombstoneKind.KEY, attested(W1, key).key_sha256)
        assert (mark in marks) is there
    assert Tombstone(TombstoneKind.IDENTITY, "another identity") in marks
    assert Tombstone(TombstoneKind.IDENTITY, f"identity-of-{W1}") not in marks
