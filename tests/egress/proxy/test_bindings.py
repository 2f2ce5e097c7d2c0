"""The view of who may speak: what a late or reordered word of the fleet can and cannot do."""

import pytest

from palyra_egress.clock import now_unix_ms
from palyra_egress.facts import UNATTESTED, BindingLevel
from palyra_egress.proxy.bindings import BindingView
from palyra_egress.reasons import Reason
from palyra_fleet.wire.view_models import AttestedFacts, ViewMessage
from tests.fakes.proxy_harness import LEASE, SECRET, WORKER, binding


def message(kind: str, seq: int, **fields) -> ViewMessage:
    return ViewMessage(kind=kind, epoch=1, seq=seq, highest_fence=1, **fields)


@pytest.fixture
def view() -> BindingView:
    view = BindingView()
    view.apply(message("snapshot", 5, bindings=(binding(),)), 0)
    return view


def refusal(view: BindingView) -> Reason | None:
    return view.authenticate(LEASE, SECRET, now_unix_ms(), 0).refusal


def test_a_snapshot_older_than_the_acknowledgement_does_not_free_the_worker(view):
    view.block_here(WORKER)
    view.evidence_delivered(WORKER)
    view.apply(message("snapshot", 5, bindings=(binding(),)), 0)
    assert refusal(view) is Reason.QUARANTINED
    view.apply(message("unblock", 6, worker_id=WORKER), 0)
    assert refusal(view) is Reason.QUARANTINED


@pytest.mark.parametrize("acknowledged_first", [True, False])
def test_a_worker_the_fleet_blocked_and_released_may_speak_again(view, acknowledged_first):
    view.block_here(WORKER)
    if acknowledged_first:
        view.evidence_delivered(WORKER)
    view.apply(message("block", 6, worker_id=WORKER), 0)
    assert refusal(view) is Reason.QUARANTINED
    if not acknowledged_first:
        view.evidence_delivered(WORKER)
    view.apply(message("unblock", 7, worker_id=WORKER), 0)
    assert refusal(view) is None


def test_a_new_violation_needs_its_own_acknowledgement(view):
    view.block_here(WORKER)
    view.evidence_delivered(WORKER)
    view.block_here(WORKER)
    view.apply(message("block", 6, worker_id=WORKER), 0)
    view.apply(message("unblock", 7, worker_id=WORKER), 0)
    assert refusal(view) is Reason.QUARANTINED


def told(level: str = "observed", image: str | None = "a" * 64, *names: str) -> AttestedFacts:
    return AttestedFacts(image_digest_sha256=image, capabilities=names, binding_level=level)  # type: ignore[arg-type]


def rebound(before: AttestedFacts, after: AttestedFacts, kind: str) -> tuple[bool, BindingView]:
    """Whether what is open under the lease is cut when its worker's facts change."""
    view = BindingView()
    view.apply(message("snapshot", 1, bindings=(binding(facts=before),)), 0)
    ended = view.apply(message(kind, 2, bindings=(binding(facts=after),)), 0)
    return LEASE in ended.lease_ids, view


@pytest.mark.parametrize("kind", ["bind", "snapshot"])
@pytest.mark.parametrize(
    ("before", "after", "cut"),
    [
        (told(), told(), False),
        (told("observed"), told("enforced"), False),
        (told(), told("observed", "a" * 64, "gpu"), False),
        (AttestedFacts(), told(), False),
        (told("enforced"), told("observed"), True),
        (told("observed", "a" * 64), told("observed", "b" * 64), True),
        (told("observed", "a" * 64), told("observed", None), True),
        (told("observed", None, "gpu", "net"), told("observed", None, "net"), True),
        (told(), AttestedFacts(), True),
    ],
)
def test_a_worker_that_is_known_for_less_loses_what_is_open(kind, before, after, cut):
    was_cut, view = rebound(before, after, kind)
    assert was_cut is cut
    assert refusal(view) is None  # the lease lives on, judged on what is known now


def test_the_requester_has_the_facts_of_its_binding_and_only_while_it_lives():
    view = BindingView()
    view.apply(message("snapshot", 1, bindings=(binding(facts=told("enforced")),)), 0)
    who = view.authenticate(LEASE, SECRET, now_unix_ms(), 0).requester
    assert who is not None and who.facts.binding_level is BindingLevel.ENFORCED
    assert who.facts.image_digest == "a" * 64
    view.apply(message("bind", 2, bindings=(binding(facts=told("observed")),)), 0)
    assert view.facts_of(who).binding_level is BindingLevel.OBSERVED
    again = view.authenticate(LEASE, SECRET, now_unix_ms(), 0).requester
    assert again == who  # the same worker and lease: facts do not make another identity
    view.apply(message("bind", 3, bindings=(binding(fence=2, facts=told("enforced")),)), 0)
    assert view.facts_of(who) == UNATTESTED
    view.apply(message("unbind", 4, lease_id=LEASE), 0)
    assert view.facts_of(who) == UNATTESTED


def test_a_suspended_worker_is_cut_and_refused_until_it_is_resumed(view):
    ended = view.apply(message("suspend", 6, worker_id=WORKER), 0)
    assert ended.worker_ids == {WORKER}
    assert refusal(view) is Reason.EGRESS_SUSPENDED
    view.apply(message("resume", 7, worker_id=WORKER), 0)
    assert refusal(view) is None
    snapshot = message("snapshot", 8, bindings=(binding(),), suspended_workers=(WORKER,))
    assert WORKER in view.apply(snapshot, 0).worker_ids
    assert refusal(view) is Reason.EGRESS_SUSPENDED
    view.apply(message("snapshot", 9, bindings=(binding(),)), 0)
    assert refusal(view) is None


def test_frozen_egress_ends_everything_and_is_refused_until_it_is_thawed(view):
    assert view.apply(message("freeze", 6), 0).everything is Reason.EGRESS_FROZEN
    assert refusal(view) is Reason.EGRESS_FROZEN
    view.apply(message("tick", 6), 0)
    assert refusal(view) is Reason.EGRESS_FROZEN
    snapshot = message("snapshot", 7, bindings=(binding(),), egress_frozen=True)
    assert view.apply(snapshot, 0).everything is Reason.EGRESS_FROZEN
    assert view.apply(message("thaw", 8), 0).everything is None
    assert refusal(view) is None
    view.apply(message("freeze", 9), 0)
    view.apply(message("snapshot", 10, bindings=(binding(),)), 0)
    assert refusal(view) is None


def test_a_quarantine_is_named_before_a_freeze(view):
    view.apply(message("freeze", 6), 0)
    view.block_here(WORKER)
    assert refusal(view) is Reason.QUARANTINED


def test_a_view_that_is_forgotten_believes_nothing_until_it_hears_again(view):
    view.forget()
    assert refusal(view) is Reason.VIEW_STALE
    view.apply(message("tick", 5), 0)
    assert refusal(view) is None
