"""The binding view against a plain model: any order of messages, clocks, blocks and hand-overs.

The model keeps only facts (what the fleet said last, what was blocked here, what time it is); the
view must authenticate exactly when every fact allows it, and never otherwise.
"""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from palyra_egress.proxy.bindings import BindingView
from palyra_egress.reasons import Reason
from palyra_fleet.wire.view_models import Binding, ViewMessage
from tests.fakes.proxy_harness import LEASE, SECRET, binding

WORKERS = ("01ARZ3NDEKTSV4RRFFQ69G5FA0", "01ARZ3NDEKTSV4RRFFQ69G5FA1")
LEASES = ("01ARZ3NDEKTSV4RRFFQ69G5FB0", "01ARZ3NDEKTSV4RRFFQ69G5FB1", "01ARZ3NDEKTSV4RRFFQ69G5FB2")
SECRETS = ("s" * 43, "o" * 43)
MAX_AGE_MS = 1_000

steps = st.sampled_from([0, 1, 1, 1, 5])
rarely_back = st.sampled_from([0] * 30 + [-1])
workers = st.sampled_from(WORKERS)
leases = st.sampled_from(LEASES)


@st.composite
def a_binding(draw: Any) -> Binding:
    made = binding(
        draw(workers), draw(leases), draw(st.sampled_from(SECRETS)), fence=draw(st.integers(1, 3))
    )
    ends_at = draw(st.integers(0, 6_000))
    return made.model_copy(update={"expires_at_unix_ms": ends_at})


class ViewMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.view = BindingView(max_age_ms=MAX_AGE_MS)
        self.unix_ms = self.monotonic_ms = 0
        self.epoch = self.seq = self.fence = 0
        self.seen = (0, 0, 0)  # the epoch, seq and fence that the view heard last
        self.heard_at: int | None = None
        self.rolled_back = False
        self.bound: dict[str, Binding] = {}
        self.blocked_by_fleet: set[str] = set()
        self.blocked_here: set[str] = set()
        self.acknowledged: set[str] = set()

    # --- the fleet ------------------------------------------------------------------------------

    def _tell(self, back: int, step: int, kind: str, **fields: Any) -> bool:
        """Send a message that is `back` behind or `step` ahead; whether the fleet went back."""
        seq = self.seq + (back or step)
        message = ViewMessage(
            kind=kind,  # type: ignore[arg-type]
            epoch=self.epoch,
            seq=seq,
            highest_fence=self.fence,
            **fields,
        )
        if not self._heard(message):
            return False
        self.seq = seq
        self.heard_at = self.monotonic_ms
        return True

    def _heard(self, message: ViewMessage) -> bool:
        """Give the view a message; whether it was of today."""
        ended = self.view.apply(message, self.monotonic_ms)
        epoch, seq, fence = self.seen
        behind = message.epoch == epoch and message.seq < seq
        if message.epoch < epoch or behind or message.highest_fence < fence:
            self.rolled_back = True
            assert set(self.bound) <= set(ended.lease_ids), "a rollback must cut everybody"
            return False
        self.seen = (message.epoch, message.seq, message.highest_fence)
        return True

    def _hand_over(self) -> None:
        over = self.acknowledged & self.blocked_by_fleet
        self.acknowledged -= over
        self.blocked_here -= over

    @rule(
        back=rarely_back,
        step=steps,
        bindings=st.lists(a_binding(), max_size=3),
        blocked=st.sets(workers),
    )
    def snapshot(self, back, step, bindings, blocked) -> None:
        fields = {"bindings": tuple(bindings), "blocked_workers": tuple(sorted(blocked))}
        if self._tell(back, step, "snapshot", **fields):
            self.bound = {b.lease_id: b for b in bindings}
            self.blocked_by_fleet = set(blocked)
            self._hand_over()

    @rule(back=rarely_back, step=steps, bindings=st.lists(a_binding(), min_size=1, max_size=2))
    def bind(self, back, step, bindings) -> None:
        if self._tell(back, step, "bind", bindings=tuple(bindings)):
            self.bound.update({b.lease_id: b for b in bindings})

    @rule(back=rarely_back, step=steps, lease=leases)
    def unbind(self, back, step, lease) -> None:
        if self._tell(back, step, "unbind", lease_id=lease):
            self.bound.pop(lease, None)

    @rule(back=rarely_back, step=steps, worker=workers)
    def block(self, back, step, worker) -> None:
        if self._tell(back, step, "block", worker_id=worker):
            self.blocked_by_fleet.add(worker)
            self._hand_over()

    @rule(back=rarely_back, step=steps, worker=workers)
    def unblock(self, back, step, worker) -> None:
        if self._tell(back, step, "unblock", worker_id=worker):
            self.blocked_by_fleet.discard(worker)

    @rule(back=rarely_back, step=steps)
    def tick(self, back, step) -> None:
        self._tell(back, step, "tick")

    @rule(up=st.integers(0, 3))
    def fleet_restarts(self, up) -> None:
        """A new epoch may count its changes from anywhere."""
        if up:
            self.epoch, self.seq = self.epoch + up, 0

    @rule(sometimes=st.sampled_from([False] * 30 + [True]), of_epoch=st.booleans())
    def an_old_fleet_speaks(self, sometimes, of_epoch) -> None:
        """A restored backup: an epoch or a fence that was passed long ago, with any seq."""
        epoch, seq, fence = self.seen
        if sometimes:
            past = (epoch - 1, seq + 9, fence) if of_epoch else (epoch, seq + 9, fence - 1)
            message = ViewMessage(kind="tick", epoch=past[0], seq=past[1], highest_fence=past[2])
            assert not self._heard(message)

    @rule(up=st.integers(0, 2))
    def fence_grows(self, up) -> None:
        self.fence += up

    # --- the proxy ------------------------------------------------------------------------------

    @rule(worker=workers)
    def blocked_by_the_proxy(self, worker) -> None:
        self.view.block_here(worker)
        self.blocked_here.add(worker)
        self.acknowledged.discard(worker)

    @rule(worker=workers)
    def evidence_delivered(self, worker) -> None:
        self.view.evidence_delivered(worker)
        self.acknowledged.add(worker)
        self._hand_over()

    @rule(ms=st.integers(0, MAX_AGE_MS + 200))
    def time_passes(self, ms) -> None:
        self.monotonic_ms += ms
        self.unix_ms += ms

    @rule()
    def expired_bindings_are_dropped(self) -> None:
        over = {i for i, b in self.bound.items() if b.expires_at_unix_ms <= self.unix_ms}
        assert set(self.view.expired(self.unix_ms).lease_ids) == over
        for lease_id in over:
            del self.bound[lease_id]

    # --- what must hold -------------------------------------------------------------------------

    def _may(self, lease: str, secret: str) -> bool:
        """Whether every fact allows it."""
        held = self.bound.get(lease)
        return (
            not self.rolled_back
            and self.heard_at is not None
            and self.monotonic_ms - self.heard_at <= MAX_AGE_MS
            and held is not None
            and held.egress_secret_sha256 == binding(secret=secret).egress_secret_sha256
            and held.expires_at_unix_ms > self.unix_ms
            and held.worker_id not in self.blocked_here | self.blocked_by_fleet
        )

    @invariant()
    def only_what_every_fact_allows_is_authenticated(self) -> None:
        for lease in LEASES:
            for secret in SECRETS:
                found = self.view.authenticate(lease, secret, self.unix_ms, self.monotonic_ms)
                allowed = found.refusal is None and found.requester is not None
                assert allowed is self._may(lease, secret)
                assert found.requester is not None or found.refusal is not None
                if allowed:
                    assert found.requester.worker_id == self.bound[lease].worker_id

    @invariant()
    def a_stale_or_rolled_back_view_refuses_everybody_for_that_reason(self) -> None:
        refusal = self.view.refusal(self.monotonic_ms)
        if self.rolled_back:
            assert refusal is Reason.EPOCH_ROLLBACK
        elif self.heard_at is None or self.monotonic_ms - self.heard_at > MAX_AGE_MS:
            assert refusal is Reason.VIEW_STALE
        else:
            assert refusal is None


TestBindingView = ViewMachine.TestCase
TestBindingView.settings = settings(
    max_examples=60,
    stateful_step_count=40,
)


@pytest.mark.parametrize(("epoch", "seq", "fence"), [(4, 99, 99), (5, 6, 99), (5, 8, 8), (6, 0, 8)])
def test_a_fleet_that_goes_back_in_anything_is_not_believed_again(epoch, seq, fence):
    view = BindingView()
    now = ViewMessage(kind="snapshot", epoch=5, seq=7, highest_fence=9, bindings=(binding(),))
    view.apply(now, 0)
    past = ViewMessage(kind="tick", epoch=epoch, seq=seq, highest_fence=fence)
    assert view.apply(past, 0).lease_ids == {LEASE}
    assert view.refusal(0) is Reason.EPOCH_ROLLBACK
    view.apply(now, 0)
    assert view.authenticate(LEASE, SECRET, 0, 0).refusal is Reason.EPOCH_ROLLBACK
