"""The part of the machine that places: workers wait, runs are offered, taken, declined, let lapse.

What may be taken is tried by every worker, with and without the number of the offer.
"""

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from palyra_fleet.leases.offers import Offer, PlacementOrder
from palyra_fleet.leases.records import LeaseOrder, LeaseStatus
from palyra_fleet.ledger.facts import assignable
from palyra_fleet.ledger.manager import Outcome
from tests.fakes.ledger_world import SCOPE
from tests.fleet.ledger.machine_base import POLICY, MachineBase, runs, some, workers


class PlacingMachine(MachineBase):
    """Rules about offers."""

    @rule(worker_id=workers, waits=st.sampled_from([True, True, False]))
    def a_worker_says_whether_it_waits(self, worker_id: str, waits: bool) -> None:
        self.seq += 1
        session = self.session(worker_id)
        outcome = self.manager.heartbeat(worker_id, session, self.seq, self.now, waits)
        self.do("heartbeat", outcome)

    @rule(run_id=runs, ttl_ms=st.integers(1, 300))
    def a_run_is_placed(self, run_id: str, ttl_ms: int) -> None:
        state, now = self.manager.state, self.manager.effective_now(self.now)
        self.do("reap", self.manager.reap(self.now))
        grant = state.usable_grant(run_id, now)
        grant_id, offer_id = None if grant is None else grant.grant_id, self.next_id()
        order = PlacementOrder(run_id, ttl_ms)
        leases = dict(state.leases)
        if self.do("place", self.manager.place(order, grant_id, offer_id, "alice", self.now)):
            offer = state.placing.offers[offer_id]
            worker, beat = state.workers[offer.worker_id], state.beats[offer.worker_id]
            assert grant is not None
            assert grant.is_for(worker.worker_id)
            assert assignable(
                worker,
                beat.deadline_unix_ms,
                now + 1,
                (),
                POLICY.binding_max_age_ms,
                POLICY.least_binding_level,
                now,
            )
            assert beat.waits
            assert state.leases == leases

    @rule(run_id=runs, worker_id=workers, ms=st.integers(20, 300))
    def somebody_waits_and_a_run_is_placed(self, run_id: str, worker_id: str, ms: int) -> None:
        """Random steps rarely line up to an offer, so help."""
        worker = self.manager.state.workers.get(worker_id)
        if worker is not None and not worker.confined:
            self.register_with(worker, None, ms)
        self.a_worker_says_whether_it_waits(worker_id, True)
        self.a_run_is_placed(run_id, ms)

    @rule(which=some, worker_id=workers, named=st.booleans(), ttl_ms=st.integers(1, 300))
    @precondition(lambda self: self.manager.state.placing.offers)
    def an_offer_is_taken(self, which: int, worker_id: str, named: bool, ttl_ms: int) -> None:
        """By whom it is kept for, or by another, which is refused."""
        offer = self.an_offer(which)
        order = LeaseOrder(
            offer.order.run_id, ttl_ms, (), SCOPE, offer_id=offer.offer_id if named else None
        )
        session = self.session(worker_id)

        def taken() -> Outcome:
            return self.manager.grant_lease(
                worker_id, session, offer.grant_id, order, self.next_id(), "5" * 64, self.now
            )

        self.last = ("grant_lease", taken)
        if self.do("grant_lease", taken()):
            assert (worker_id, True) == (offer.worker_id, ttl_ms <= offer.order.ttl_ms)
            assert offer.offer_id not in self.manager.state.placing.offers
            lease = self.manager.state.live_lease_of(worker_id)
            assert lease is not None
            assert lease.status is LeaseStatus.ASSIGNED
            assert self.manager.state.placing.ended[offer.offer_id].lease_id == lease.lease_id

    @rule(which=some, worker_id=workers)
    @precondition(lambda self: self.manager.state.placing.offers)
    def an_offer_is_declined(self, which: int, worker_id: str) -> None:
        offer = self.an_offer(which)
        session = self.session(worker_id)
        outcome = self.manager.decline(worker_id, session, offer.offer_id, "why", self.now)
        if self.do("decline", outcome):
            assert worker_id == offer.worker_id
            assert not self.manager.state.placing.waits(worker_id)

    @invariant()
    def an_offer_keeps_one_run_for_one_worker(self) -> None:
        if not hasattr(self, "manager"):
            return
        placing = self.manager.state.placing
        offers = placing.offers.values()
        assert len({offer.worker_id for offer in offers}) == len(offers)
        assert len({offer.order.run_id for offer in offers}) == len(offers)
        assert not any(offer.order.run_id in self.manager.state.lease_by_run for offer in offers)
        assert not any(placing.waits(offer.worker_id) for offer in offers)

    def an_offer(self, which: int) -> Offer:
        offers = list(self.manager.state.placing.offers.values())
        return offers[which % len(offers)]
