"""Labels: who gives them, what stays, and that nothing else comes of them."""

from dataclasses import replace

import pytest

from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.ledger.worker_filter import WorkerFilter
from palyra_fleet.refusals import FleetReason
from palyra_fleet.store import codec
from palyra_fleet.wire.labels import MAX_LABELS, WantedLabel
from tests.fakes.ledger_world import LedgerWorld, attested, refused, ulid

W1, W2 = ulid(1001), ulid(1002)
NOW = 2_000


@pytest.fixture
def world() -> LedgerWorld:
    world = LedgerWorld()
    world.register(W1)
    return world


def label(world: LedgerWorld, labels: dict[str, str], *remove: str) -> WorkerRecord:
    world.do(world.manager.label(W1, labels, remove, "alice", "why", NOW))
    return world.worker(W1)


def test_labels_are_given_and_taken_and_nothing_else_changes(world: LedgerWorld) -> None:
    before = world.worker(W1)
    assert label(world, {"zone": "a", "rack": "1"}).labels == (("rack", "1"), ("zone", "a"))
    after = label(world, {"zone": "b"}, "rack", "zone", "never")
    assert after.labels == (("zone", "b"),)
    assert replace(after, labels=()) == before


def test_an_event_says_what_changed_and_why(world: LedgerWorld) -> None:
    label(world, {"zone": "a", "rack": "1"})
    outcome = world.manager.label(W1, {"zone": "a", "disk": ""}, ("rack",), "bob", "moved", NOW)
    (event,) = world.do(outcome).events
    assert (event.reason, event.actor, event.worker_id) == (EventReason.LABELLED, "bob", W1)
    assert event.detail == {"given": "disk=", "taken": "rack", "why": "moved"}
    (given,) = world.do(world.manager.label(W1, {"zone": "b"}, (), "bob", "moved", NOW)).events
    assert given.detail == {"given": "zone=b", "taken": None, "why": "moved"}
    (taken,) = world.do(world.manager.label(W1, {}, ("zone",), "bob", "gone", NOW)).events
    assert taken.detail == {"given": None, "taken": "zone", "why": "gone"}


def test_the_same_again_changes_nothing_and_is_no_event(world: LedgerWorld) -> None:
    label(world, {"zone": "a"})
    again = world.manager.label(W1, {"zone": "a"}, ("rack",), "alice", "why", NOW)
    assert not world.do(again).durable
    kept = world.manager.label(W1, {"zone": "a"}, ("zone",), "alice", "why", NOW)
    assert not world.do(kept).durable


def test_a_worker_has_so_many_labels_and_no_more(world: LedgerWorld) -> None:
    full = {f"k{number}": "" for number in range(MAX_LABELS)}
    label(world, full)
    more = world.manager.label(W1, {"more": ""}, (), "alice", "why", NOW)
    assert refused(more) is FleetReason.LABELS_FULL
    del full["k0"]
    assert dict(label(world, {"more": ""}, "k0").labels) == full | {"more": ""}


def test_nobody_labels_who_is_unknown_or_banned(world: LedgerWorld) -> None:
    unknown = world.manager.label(W2, {"a": ""}, (), "alice", "why", NOW)
    assert refused(unknown) is FleetReason.WORKER_UNKNOWN
    world.do(world.manager.ban(W1, "alice", "why", NOW))
    banned = world.manager.label(W1, {"a": ""}, (), "alice", "why", NOW)
    assert refused(banned) is FleetReason.WORKER_BANNED


def test_labels_stay_through_new_evidence_quarantine_and_release(world: LedgerWorld) -> None:
    label(world, {"zone": "a"})
    world.do(world.manager.register(attested(W1), NOW))
    world.do(world.manager.quarantine(W1, "alice", "why", NOW))
    assert label(world, {"held": "1"}).labels == (("held", "1"), ("zone", "a"))
    world.do(world.manager.register(attested(W1, "another key"), NOW))
    world.do(world.manager.release(W1, "alice", "why", NOW))
    assert world.worker(W1).labels == (("held", "1"), ("zone", "a"))


def test_who_is_new_has_the_labels_of_what_let_it_in_and_who_is_known_keeps_its_own(
    world: LedgerWorld,
) -> None:
    pooled = (("pool", "a"),)
    outcome = world.manager.register(replace(attested(W2, "two"), labels=pooled), NOW)
    (event,) = world.do(outcome).events
    assert (event.reason, event.detail["labels"]) == (EventReason.REGISTERED, "pool=a")
    assert world.worker(W2).labels == pooled
    world.do(world.manager.register(replace(attested(W1), labels=pooled), NOW))
    assert world.worker(W1).labels == ()
    world.do(world.manager.label(W2, {}, ("pool",), "alice", "why", NOW))
    again = world.manager.register(replace(attested(W2, "two"), labels=pooled), NOW)
    (event,) = world.do(again).events
    assert (event.reason, event.detail.get("labels")) == (EventReason.REGISTERED, None)
    assert world.worker(W2).labels == ()


def test_of_who_is_let_in_without_labels_the_event_says_none(world: LedgerWorld) -> None:
    (event,) = world.do(world.manager.register(attested(W2, "two"), NOW)).events
    assert "labels" not in event.detail


def test_a_record_of_before_there_were_labels_has_none(world: LedgerWorld) -> None:
    labelled = label(world, {"zone": "a"})
    assert codec.read_worker(codec.worker_body(labelled)) == labelled
    bare = codec.worker_body(labelled).replace(',"labels":[["zone","a"]]', "")
    assert "zone" not in bare
    assert codec.read_worker(bare).labels == ()


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ((), True),
        ((("zone", None),), True),
        ((("zone", "a"),), True),
        ((("zone", "b"),), False),
        ((("disk", None),), True),
        ((("disk", ""),), True),
        ((("disk", "x"),), False),
        ((("rack", None),), False),
        ((("zone", "a"), ("disk", None)), True),
        ((("zone", "a"), ("rack", None)), False),
        ((("zone", "a"), ("zone", "b")), False),
    ],
)
def test_a_list_shows_who_has_every_label_that_is_asked_for(
    world: LedgerWorld, wanted: tuple[WantedLabel, ...], fits: bool
) -> None:
    worker = label(world, {"zone": "a", "disk": ""})
    assert WorkerFilter(labels=wanted).fits(worker, NOW, waits=False) is fits
