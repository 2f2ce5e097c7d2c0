"""Offers, one rule at a time: what they keep, how they are taken, and what ends them."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.artifacts import ArtifactTransport
from palyra_fleet.leases.offers import Offer
from palyra_fleet.ledger import enrolment
from palyra_fleet.ledger.decision import Decision, EnrolledKey
from palyra_fleet.ledger.facts import failures_of
from palyra_fleet.ledger.manager import Outcome
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.placement_models import OfferState
from tests.fakes.ledger_world import (
    SCOPE,
    attested,
    key_of,
    reasons,
    refused,
    ulid,
)
from tests.fakes.placing_world import NOW, W1, W2, W3, PlacingWorld


@pytest.fixture
def world() -> PlacingWorld:
    world = PlacingWorld()
    for worker_id in (W1, W2):
        world.join(worker_id)
    return world


def test_a_worker_has_one_offer_at_a_time(world: PlacingWorld) -> None:
    world.wait(W1)
    world.offer("run-1")
    world.wait(W1)
    world.grant("run-2", NOW)
    assert refused(world.place("run-2")) is FleetReason.NO_WORKER


def test_the_run_is_kept_for_its_worker_until_the_offer_ends(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    assert refused(world.ask(W2, "run-1", NOW)) is FleetReason.RUN_OFFERED
    world.do(world.manager.reap(offer.expires_at_unix_ms))
    world.do(world.ask(W2, "run-1", offer.expires_at_unix_ms))


def test_taking_ends_the_offer_and_is_in_the_log(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    decision = world.do(world.take(offer))
    assert reasons(decision) == ["worker.assigned"]
    assert decision.events[0].detail["offer_id"] == offer.offer_id
    assert world.became(offer) is OfferState.TAKEN
    assert refused(world.take(offer)) is FleetReason.GRANT_SPENT
    assert not world.manager.state.beats[W1].waits
    assert world.worker(W1).last_used_at_unix_ms == NOW
    world.checked()


def test_it_is_taken_without_its_number_too_but_as_it_says(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    assert refused(world.take(offer, offer_id=None, ttl_ms=60_001)) is FleetReason.LEASE_INVALID
    world.do(world.take(offer, offer_id=None))
    assert world.became(offer) is OfferState.TAKEN


@pytest.mark.parametrize(
    "said",
    [
        {"ttl_ms": 60_001},
        {"required_capabilities": ("gpu",)},
        {"artifact_transport": ArtifactTransport((), ("out",), 5)},
    ],
)
def test_a_lease_that_is_not_as_offered_is_refused(
    world: PlacingWorld, said: dict[str, object]
) -> None:
    world.wait(W1)
    assert refused(world.take(world.offer(), **said)) is FleetReason.LEASE_INVALID


def test_a_read_only_offer_is_taken_read_only() -> None:
    world = PlacingWorld()
    world.join(W1, binding_level=BindingLevel.ENFORCED)
    world.wait(W1)
    offer = world.offer(read_only=True)
    assert refused(world.take(offer)) is FleetReason.LEASE_INVALID
    world.do(world.take(offer, workspace_scope=replace(SCOPE, read_only=True)))


def test_what_is_approved_to_read_only_is_placed_and_taken_so() -> None:
    world = PlacingWorld()
    world.join(W1, binding_level=BindingLevel.ENFORCED)
    world.wait(W1)
    grant = world.manager.state.grants[world.grant("run-2", NOW)]
    reading = replace(grant, grant_id=ulid(60), run_id="run-1", read_only=True)
    world.do(world.manager.create_grant(reading, "alice", NOW))
    assert refused(world.place("run-1")) is FleetReason.LEASE_INVALID
    (offer,) = world.do(world.place("run-1", read_only=True)).offers
    assert refused(world.take(offer)) is FleetReason.LEASE_INVALID
    world.do(world.take(offer, workspace_scope=replace(SCOPE, read_only=True)))


def test_another_approval_of_the_run_does_not_take_the_offer(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    other = world.grant("run-1", NOW)
    assert refused(world.take(replace(offer, grant_id=other))) is FleetReason.LEASE_INVALID


def test_an_offer_that_ended_or_is_anothers_is_not_taken_by_its_number(
    world: PlacingWorld,
) -> None:
    world.wait(W1)
    offer = world.offer()
    assert refused(world.take(replace(offer, worker_id=W2))) is FleetReason.OFFER_ENDED
    assert refused(world.take(replace(offer, offer_id=ulid(7)))) is FleetReason.OFFER_ENDED
    world.do(world.manager.reap(offer.expires_at_unix_ms))
    late = world.take(offer, offer.expires_at_unix_ms)
    assert refused(late) is FleetReason.OFFER_ENDED


def test_an_offer_lapses_at_its_end_and_counts_until_the_next_beat(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    end = offer.expires_at_unix_ms
    world.do(world.manager.reap(end - 1))
    assert world.manager.state.placing.offers
    decision = world.do(world.manager.reap(end))
    assert reasons(decision) == ["worker.offer_lapsed"]
    assert world.became(offer) is OfferState.LAPSED
    assert failures_of(world.worker(W1)) == 1
    assert refused(world.place("run-1", end)) is FleetReason.NO_WORKER
    world.wait(W1, now=end)
    assert isinstance(world.place("run-1", end), Decision)
    world.checked()


def test_a_declined_run_is_free_at_once(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    foreign = world.manager.decline(W2, 1, offer.offer_id, "not mine", NOW)
    assert refused(foreign) is FleetReason.OFFER_ENDED
    decision = world.do(world.manager.decline(W1, 1, offer.offer_id, "no room", NOW))
    assert reasons(decision) == ["worker.offer_declined"]
    assert decision.events[0].actor == W1
    assert world.became(offer) is OfferState.DECLINED
    again = world.manager.decline(W1, 1, offer.offer_id, "no room", NOW)
    assert refused(again) is FleetReason.OFFER_ENDED
    assert refused(world.place("run-1")) is FleetReason.NO_WORKER
    world.do(world.ask(W2, "run-1", NOW))


def test_the_time_of_an_offer_that_ended_passes_without_a_word(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    world.do(world.manager.decline(W1, 1, offer.offer_id, "no room", NOW))
    assert reasons(world.do(world.manager.reap(offer.expires_at_unix_ms))) == []
    assert world.became(offer) is OfferState.DECLINED


def test_what_ends_an_offer_as_nobodys_failure_leaves_the_word_that_the_worker_waits(
    world: PlacingWorld,
) -> None:
    world.wait(W1)
    world.do(_withdraw(world, world.offer()))
    assert world.manager.state.placing.waits(W1)


def test_another_approval_of_the_run_may_go(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    other = world.manager.state.grants[world.grant("run-1", NOW)]
    world.do(world.manager.withdraw_grant(other, "alice", "why", NOW))
    assert world.manager.state.placing.offers == {offer.offer_id: offer}


def test_evidence_that_is_over_waits_for_nothing(world: PlacingWorld) -> None:
    """Not from its last millisecond on, whatever the beats say."""
    end = NOW + 50
    world.do(world.manager.register(attested(W1, now_unix_ms=NOW, until_unix_ms=end), NOW))
    world.wait(W1, now=end - 1)
    assert world.manager.state.placing.waits(W1)
    for now in (end, end + 1):
        world.wait(W1, now=now)
        assert not world.manager.state.placing.waits(W1)


def test_a_quarantined_worker_declines_nothing(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    outcome = world.manager.decline(W1, 1, offer.offer_id, "no room", NOW)
    assert refused(outcome) is FleetReason.WORKER_QUARANTINED


PROXY = EnrolledKey("proxy", "proxy-1", key_of("proxy-1"))


def _withdraw(world: PlacingWorld, offer: Offer) -> Outcome:
    grant = world.manager.state.grants[offer.grant_id]
    return world.manager.withdraw_grant(grant, "alice", "why", NOW)


def _no_proxy(world: PlacingWorld, offer: Offer) -> Outcome:
    world.do(enrolment.enrol(world.manager.state, PROXY, "alice", NOW))
    return enrolment.take_back(world.manager.state, "proxy", "proxy-1", "alice", "why", NOW)


def _operator(verb: str, *more: object) -> Callable[[PlacingWorld, Offer], Outcome]:
    return lambda world, offer: getattr(world.manager, verb)(W1, "alice", "why", *more, NOW)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "ends",
    [
        *(_operator(verb) for verb in ("quarantine", "cordon", "ban", "evict")),
        _operator("drain", 1_000),
        _withdraw,
        _no_proxy,
        lambda world, offer: world.manager.register(attested(W1, now_unix_ms=NOW), NOW),
        lambda world, offer: world.manager.register(attested(W1, "new", now_unix_ms=NOW), NOW),
        lambda world, offer: world.manager.end_what_time_bounds(1, NOW),
        lambda world, offer: world.manager.reap(world.manager.state.beats[W1].deadline_unix_ms + 1),
    ],
)
def test_what_ends_the_worker_or_the_approval_ends_the_offer(
    world: PlacingWorld, ends: Callable[[PlacingWorld, Offer], Outcome]
) -> None:
    world.manager.policy = replace(world.manager.policy, offer_ms=60_000)
    world.wait(W1)
    offer = world.offer()
    decision = world.do(ends(world, offer))
    assert "worker.offer_ended" in reasons(decision)
    assert world.became(offer) is OfferState.ENDED
    assert world.manager.state.placing.offers == {}
    known = world.manager.state.workers.get(W1)
    assert known is None or failures_of(known) == 0
    world.checked()


def test_another_run_ends_the_offer(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    world.lease(W1, "run-2", NOW)
    assert world.became(offer) is OfferState.ENDED
    world.checked()


def test_an_overdue_beat_ends_the_offer_although_the_worker_is_back(world: PlacingWorld) -> None:
    world.manager.policy = replace(world.manager.policy, offer_ms=60_000)
    world.wait(W1)
    offer = world.offer()
    world.wait(W1, now=world.manager.state.beats[W1].deadline_unix_ms + 1)
    assert world.became(offer) is OfferState.ENDED
    assert world.manager.state.placing.waits(W1)


def test_a_session_that_goes_on_keeps_its_offer_and_its_word(world: PlacingWorld) -> None:
    """To take it, a worker whose receipt is older than a minute has to prove itself again."""
    world.wait(W1, W2)
    offer = world.offer(now=NOW)
    for worker_id in (W1, W2):
        proof = attested(worker_id, now_unix_ms=NOW + 5)
        world.do(world.manager.register(proof, NOW + 5, continues=True))
    assert world.manager.state.placing.offers == {offer.offer_id: offer}
    assert world.manager.state.placing.waits(W2)
    world.do(world.take(offer, NOW + 6))


def test_a_session_that_goes_on_does_not_wait_unless_it_said_so(world: PlacingWorld) -> None:
    world.do(world.manager.register(attested(W1, now_unix_ms=NOW), NOW, continues=True))
    assert not world.manager.state.placing.waits(W1)


def test_one_that_was_silent_when_the_fleet_began_anew_may_go_on(world: PlacingWorld) -> None:
    """Nothing is remembered of its beats, so it has to say anew that it waits."""
    world.wait(W1)
    late = world.manager.state.beats[W1].deadline_unix_ms + 1
    world.do(world.manager.reap(late))
    world.manager.reload(tuple(world.manager.state.workers.values()), 0, late)
    world.do(world.manager.register(attested(W1, now_unix_ms=late), late, continues=True))
    assert not world.manager.state.placing.waits(W1)


def test_a_new_session_has_to_say_anew_that_it_waits(world: PlacingWorld) -> None:
    world.wait(W1)
    world.register(W1, NOW)
    assert not world.manager.state.placing.waits(W1)


def test_an_offer_ends_with_evidence_that_became_shorter(world: PlacingWorld) -> None:
    world.wait(W1)
    offer = world.offer()
    shorter = attested(W1, now_unix_ms=NOW, until_unix_ms=NOW + 50)
    world.do(world.manager.register(shorter, NOW, continues=True))
    assert world.manager.state.placing.offers[offer.offer_id].expires_at_unix_ms == NOW + 50
    world.checked()
    world.do(world.manager.reap(NOW + 50))
    assert world.became(offer) is OfferState.LAPSED


def test_no_offer_is_longer_than_evidence_or_approval(world: PlacingWorld) -> None:
    world.wait(W1)
    world.grant("run-1", NOW, NOW + 70)
    (offer,) = world.do(world.place("run-1")).offers
    assert offer.expires_at_unix_ms == NOW + 70
    world.join(W3, until_unix_ms=NOW + 50)
    world.wait(W1, waits=False)
    world.wait(W3)
    assert world.offer("run-2").expires_at_unix_ms == NOW + 50
