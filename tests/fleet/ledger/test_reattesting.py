"""New evidence and new keys on demand, each guard at its boundary."""

from dataclasses import replace

import pytest

from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.ledger.auditor import audit_worker
from palyra_fleet.ledger.decision import Decision, LedgerEvent, Tombstone, TombstoneKind
from palyra_fleet.ledger.facts import EvidenceDemand, Work, WorkerLifecycleState
from palyra_fleet.ledger.manager import Outcome
from palyra_fleet.ledger.reattesting import stricter_of
from palyra_fleet.ledger.wire_views import demanded, worker_view
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.placement_models import OrderKind
from tests.fakes.ledger_world import LedgerWorld, attested, reasons, refused, ulid

W1, W2 = ulid(1001), ulid(1002)
NOW, WITHIN = 2_000, 5_000
DUE = NOW + WITHIN


@pytest.fixture
def world() -> LedgerWorld:
    made = LedgerWorld()
    made.do(made.manager.hear_policy("proxy-1", "policy", NOW))
    made.register(W1)
    return made


def demand(
    world: LedgerWorld,
    new_key: bool = False,
    within_ms: int | None = WITHIN,
    at: int = NOW,
    by: str = "alice",
) -> Outcome:
    return world.manager.reattest(W1, new_key, within_ms, by, "why", at)


def evidence(world: LedgerWorld, key: str = "key", at: int = NOW) -> AttestationResult:
    """By the key's name; `key` is the one that the worker has."""
    signer = world.worker(W1).proof.key_sha256
    return replace(attested(W1, key, now_unix_ms=at), succeeds_key_sha256=signer)


def event_of(decision: Decision, reason: str) -> LedgerEvent:
    return next(event for event in decision.events if event.reason == reason)


@pytest.mark.parametrize("new_key", [False, True])
def test_a_demand_shortens_what_the_worker_stands_on_and_tells_it(
    world: LedgerWorld, new_key: bool
) -> None:
    lease = world.lease(W1, "run-1", NOW)
    told = world.do(demand(world, new_key))
    assert reasons(told) == ["worker.reattestation_demanded", "worker.lease_shortened"]
    assert told.events[0].actor == "alice"
    assert told.events[0].detail == {
        "why": "why",
        "new_key": new_key,
        "due_at_unix_ms": DUE,
        "attestation_epoch": 1,
        "key_sha256": world.worker(W1).proof.key_sha256,
    }
    (notice,) = told.notices
    assert (notice.worker_id, notice.kind) == (W1, OrderKind.REATTEST)
    worker = world.worker(W1)
    assert worker.demand == EvidenceDemand("alice", "why", new_key, NOW, DUE)
    assert worker.proof.attested_until_unix_ms == DUE
    assert world.manager.state.leases[lease.lease_id].expires_at_unix_ms == DUE
    assert worker.work is Work.ASSIGNED
    view = worker_view(worker, None, NOW).demanded
    assert view is not None
    assert (view.asked_by, view.why, view.asked_at_unix_ms) == ("alice", "why", NOW)
    assert (view.new_key, view.due_at_unix_ms) == (new_key, DUE)
    answered = demanded(worker)
    assert answered is not None
    assert (answered.new_key, answered.due_at_unix_ms) == (new_key, DUE)


def test_the_policy_says_how_long_where_the_operator_does_not(world: LedgerWorld) -> None:
    world.do(demand(world, within_ms=None))
    asked = world.worker(W1).demand
    assert asked is not None
    assert asked.due_at_unix_ms == NOW + world.manager.policy.reattest_within_ms


def test_evidence_that_ends_sooner_is_not_made_longer(world: LedgerWorld) -> None:
    until = world.worker(W1).proof.attested_until_unix_ms
    world.do(demand(world, within_ms=10**9))
    assert world.worker(W1).proof.attested_until_unix_ms == until


def test_until_it_is_met_the_worker_keeps_its_lease_and_gets_no_new_one(world: LedgerWorld) -> None:
    world.grant("run-1", NOW)
    assert world.manager.lifecycle(W1, NOW) is WorkerLifecycleState.AVAILABLE
    world.do(demand(world))
    assert world.manager.lifecycle(W1, NOW) is WorkerLifecycleState.REGISTERED
    assert refused(world.ask(W1, "run-1", NOW)) is FleetReason.REATTESTATION_DEMANDED
    told = world.do(world.manager.register(evidence(world), NOW, continues=True))
    assert event_of(told, "worker.reattested").detail["demanded_by"] == "alice"
    assert event_of(told, "worker.reattested").detail["demanded_at_unix_ms"] == NOW
    assert "retired_key_sha256" not in event_of(told, "worker.reattested").detail
    assert world.worker(W1).demand is None
    world.do(world.ask(W1, "run-1", NOW))
    assert Tombstone(TombstoneKind.KEY, evidence(world).key_sha256) not in (
        world.manager.state.tombstones
    )


def test_a_lease_is_not_renewed_beyond_the_deadline_and_ends_with_it(world: LedgerWorld) -> None:
    lease = world.lease(W1, "run-1", NOW)
    world.do(demand(world))
    session = world.worker(W1).session_epoch
    renewed = world.manager.renew_lease(W1, session, lease.lease_id, lease.fence, None, NOW + 10)
    assert world.do(renewed).records == ()
    assert reasons(world.do(world.manager.reap(DUE - 1))) == []
    told = world.do(world.manager.reap(DUE))
    assert reasons(told) == ["worker.lease_revoked"]
    assert told.events[0].detail["why"] == "the evidence that was demanded was not shown in time"
    assert world.worker(W1).work is Work.ORPHANED
    assert world.worker(W1).recent_outcomes == 0
    late = world.manager.register(evidence(world, at=DUE), DUE)
    world.do(late)
    assert (world.worker(W1).demand, world.worker(W1).work) == (None, Work.IDLE)


def test_a_lease_that_ends_before_the_deadline_ends_as_ever(world: LedgerWorld) -> None:
    lease = world.lease(W1, "run-1", NOW, ttl_ms=100)
    world.do(demand(world))
    assert world.manager.state.leases[lease.lease_id].expires_at_unix_ms == NOW + 100
    assert reasons(world.do(world.manager.reap(NOW + 100))) == ["worker.ttl_expired"]


@pytest.mark.parametrize("continues", [True, False])
def test_where_a_new_key_is_demanded_the_old_one_proves_nothing(
    world: LedgerWorld, continues: bool
) -> None:
    world.do(demand(world, new_key=True))
    outcome = world.manager.register(evidence(world), NOW, continues)
    assert refused(outcome) is FleetReason.NEW_KEY_DEMANDED


@pytest.mark.parametrize("continues", [True, False])
def test_a_new_key_retires_the_old_one_for_ever(world: LedgerWorld, continues: bool) -> None:
    lease = world.lease(W1, "run-1", NOW)
    old = world.worker(W1).proof.key_sha256
    world.do(demand(world, new_key=True))
    told = world.do(world.manager.register(evidence(world, "next"), NOW, continues))
    reason = "worker.reattested" if continues else "worker.registered"
    assert event_of(told, reason).detail["retired_key_sha256"] == old
    assert world.worker(W1).demand is None
    kept = world.manager.state.live_lease_of(W1)
    assert (kept is not None and kept.lease_id == lease.lease_id) is continues
    assert refused(world.manager.register(attested(W1), NOW)) is FleetReason.WORKER_BANNED
    assert old not in world.manager.state.worker_by_key


@pytest.mark.parametrize(
    ("signer", "taken"),
    [("current", True), ("another", False), (None, False)],
    ids=["the current key", "another key", "nobody"],
)
@pytest.mark.parametrize("asked", [True, False])
def test_a_session_goes_on_with_the_next_key_only_if_its_own_signed_for_it(
    world: LedgerWorld, signer: str | None, taken: bool, asked: bool
) -> None:
    if asked:
        world.do(demand(world, new_key=True))
    before = world.worker(W1)
    keys = {"current": before.proof.key_sha256, "another": "9" * 64, None: None}
    result = replace(evidence(world, "next"), succeeds_key_sha256=keys[signer])
    outcome = world.manager.register(result, NOW, continues=True)
    if not taken:
        assert refused(outcome) is FleetReason.SESSION_STALE
        return
    world.do(outcome)
    after = world.worker(W1)
    assert after.session_epoch == before.session_epoch + 1
    assert after.proof.key_sha256 == result.key_sha256
    mark = Tombstone(TombstoneKind.KEY, before.proof.key_sha256)
    assert (mark in world.manager.state.tombstones) is asked


def test_the_next_key_goes_on_alone_once_its_answer_was_lost(world: LedgerWorld) -> None:
    world.do(demand(world, new_key=True))
    first = evidence(world, "next")
    world.do(world.manager.register(first, NOW, continues=True))
    again = replace(first, succeeds_key_sha256=None)  # the key that signed is not the current one
    world.do(world.manager.register(again, NOW, continues=True))


def test_a_quarantined_worker_takes_no_next_key_along(world: LedgerWorld) -> None:
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    outcome = world.manager.register(evidence(world, "next"), NOW, continues=True)
    assert refused(outcome) is FleetReason.SESSION_STALE


@pytest.mark.parametrize(
    ("nonce_at", "taken"), [(NOW, True), (NOW - 1, False), (None, False)], ids=str
)
@pytest.mark.parametrize("new_key", [True, False])
def test_evidence_that_was_begun_before_the_demand_does_not_meet_it(
    world: LedgerWorld, nonce_at: int | None, taken: bool, new_key: bool
) -> None:
    world.do(demand(world, new_key))
    result = evidence(world, "next" if new_key else "key")
    result = replace(result, nonce_issued_at_unix_ms=nonce_at)
    outcome = world.manager.register(result, NOW, continues=True)
    if taken:
        world.do(outcome)
    else:
        assert refused(outcome) is FleetReason.EVIDENCE_BEFORE_DEMAND
        assert world.worker(W1).demand is not None


def test_the_same_again_and_anything_weaker_changes_nothing(world: LedgerWorld) -> None:
    world.do(demand(world, new_key=True))
    for new_key, within_ms in ((True, WITHIN), (False, WITHIN), (True, WITHIN + 1)):
        outcome = demand(world, new_key, within_ms, by="bob")
        assert isinstance(outcome, Decision)
        assert (outcome.records, outcome.events, outcome.notices) == ((), (), ())


_SAME = EvidenceDemand("alice", "a", False, 1, 10)
_KEY = EvidenceDemand("alice", "a", True, 1, 10)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, _SAME, _SAME),
        (_SAME, None, _SAME),
        (_SAME, EvidenceDemand("bob", "b", False, 2, 10), _SAME),
        (_KEY, EvidenceDemand("bob", "b", True, 2, 10), _KEY),
        (_KEY, EvidenceDemand("bob", "b", False, 2, 10), _KEY),
        (_SAME, EvidenceDemand("bob", "b", False, 2, 11), _SAME),
        (
            _SAME,
            EvidenceDemand("bob", "b", False, 2, 9),
            EvidenceDemand("bob", "b", False, 2, 9),
        ),
        (
            _SAME,
            EvidenceDemand("bob", "b", True, 2, 11),
            EvidenceDemand("bob", "b", True, 2, 10),
        ),
        (
            _KEY,
            EvidenceDemand("bob", "b", False, 2, 9),
            EvidenceDemand("bob", "b", True, 2, 9),
        ),
    ],
    ids=[
        "none before",
        "none after",
        "the same",
        "the same key",
        "less",
        "later",
        "sooner",
        "a key, later",
        "sooner, no key",
    ],
)
def test_of_two_demands_the_stricter_parts_hold(
    one: EvidenceDemand | None, other: EvidenceDemand | None, both: EvidenceDemand
) -> None:
    assert stricter_of(one, other) == both


def test_nothing_is_demanded_of_the_unknown_the_banned_and_the_quarantined(
    world: LedgerWorld,
) -> None:
    unknown = world.manager.reattest(W2, False, None, "alice", "why", NOW)
    assert refused(unknown) is FleetReason.WORKER_UNKNOWN
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    assert refused(demand(world)) is FleetReason.WORKER_QUARANTINED
    world.do(world.manager.ban(W1, "alice", "why", NOW))
    assert refused(demand(world)) is FleetReason.WORKER_BANNED


def test_a_quarantine_takes_the_place_of_a_demand(world: LedgerWorld) -> None:
    world.do(demand(world, new_key=True))
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    assert world.worker(W1).demand is None


@pytest.mark.parametrize("new_key", [False, True])
def test_forgetting_the_worker_brings_no_key_back_that_was_to_be_replaced(
    world: LedgerWorld, new_key: bool
) -> None:
    world.do(demand(world, new_key))
    shown = evidence(world)
    told = world.do(world.manager.evict(W1, "alice", "gone", NOW))
    detail = event_of(told, "worker.evicted_by_operator").detail
    assert detail.get("retired_key_sha256") == (shown.key_sha256 if new_key else None)
    outcome = world.manager.register(shown, NOW)
    if new_key:
        assert refused(outcome) is FleetReason.WORKER_BANNED
        world.do(world.manager.register(attested(W1, "other", now_unix_ms=NOW), NOW))
    else:
        world.do(outcome)


def test_an_offer_to_the_worker_ends(world: LedgerWorld) -> None:
    beat = world.manager.heartbeat(W1, world.worker(W1).session_epoch, 1, NOW, waits=True)
    world.do(beat)
    assert world.manager.state.placing.waits(W1)
    world.do(demand(world))
    assert not world.manager.state.placing.waits(W1)
    world.do(world.manager.register(evidence(world), NOW, continues=True))
    assert world.manager.state.placing.waits(W1)


@pytest.mark.parametrize(
    ("spoiled", "told"),
    [
        ({"attested_until_unix_ms": DUE + 1}, "5:"),
        ({"attested_until_unix_ms": DUE}, None),
    ],
)
def test_the_auditor_looks_at_demands(
    world: LedgerWorld, spoiled: dict[str, int], told: str | None
) -> None:
    world.do(demand(world))
    worker = world.worker(W1)
    changed = replace(worker, proof=replace(worker.proof, **spoiled))
    world.do(Decision(NOW, records=(changed,)))
    found = audit_worker(world.manager.state, world.manager.policy, W1)
    assert [one[:2] for one in found] == ([] if told is None else [told])


def test_the_auditor_finds_a_demand_on_a_worker_that_is_held(world: LedgerWorld) -> None:
    asked = EvidenceDemand("alice", "why", False, NOW, NOW)
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    worker = world.worker(W1)
    over = replace(worker.proof, attested_until_unix_ms=NOW)
    world.do(Decision(NOW, records=(replace(worker, demand=asked, proof=over),)))
    (found,) = audit_worker(world.manager.state, world.manager.policy, W1)
    assert found.startswith("4:")


@pytest.mark.parametrize(
    ("kind", "new_key", "well"),
    [
        (TombstoneKind.KEY, True, True),
        (TombstoneKind.KEY, False, False),
        (TombstoneKind.IDENTITY, True, False),
    ],
)
def test_only_a_new_key_makes_up_for_one_that_is_retired(
    world: LedgerWorld, kind: TombstoneKind, new_key: bool, well: bool
) -> None:
    world.do(demand(world, new_key))
    worker = world.worker(W1)
    of_kind = {
        TombstoneKind.KEY: worker.proof.key_sha256,
        TombstoneKind.IDENTITY: worker.evidence_identity,
    }
    world.do(Decision(NOW, records=(Tombstone(kind, of_kind[kind]),)))
    found = audit_worker(world.manager.state, world.manager.policy, W1)
    assert (found == ()) is well
