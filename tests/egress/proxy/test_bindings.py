"""The view of who may speak: what a late or reordered word of the fleet can and cannot do."""

import pytest

from palyra_egress.clock import now_unix_ms
from palyra_egress.proxy.bindings import BindingView
from palyra_egress.reasons import Reason
from palyra_fleet.wire.models import ViewMessage
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
