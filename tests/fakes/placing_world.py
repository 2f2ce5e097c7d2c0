"""A pure ledger with shorthand for waiting, placing and taking."""

from dataclasses import dataclass, replace

from palyra_fleet.leases.offers import Offer, PlacementOrder
from palyra_fleet.leases.records import LeaseOrder
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.manager import Outcome
from palyra_fleet.wire.placement_models import OfferState
from tests.fakes.ledger_world import (
    SCOPE,
    LedgerWorld,
    attested,
    ulid,
)

W1, W2, W3 = ulid(1001), ulid(1002), ulid(1003)
NOW = 3_000


@dataclass(slots=True)
class PlacingWorld(LedgerWorld):
    """Workers that wait, and offers."""

    beats: int = 0

    def join(self, worker_id: str, now: int = 2_000, **facts: object) -> None:
        result = attested(worker_id, now_unix_ms=now, **facts)  # type: ignore[arg-type]
        self.do(self.manager.register(result, now))

    def wait(self, *worker_ids: str, now: int = NOW, waits: bool = True) -> None:
        for worker_id in worker_ids:
            self.beats += 1
            session = self.worker(worker_id).session_epoch
            self.do(self.manager.heartbeat(worker_id, session, self.beats, now, waits))

    def place(self, run_id: str, now: int = NOW, **order: object) -> Outcome:
        grant = self.manager.state.usable_grant(run_id, now)
        grant_id = None if grant is None else grant.grant_id
        asked = PlacementOrder(run_id, 60_000, **order)  # type: ignore[arg-type]
        return self.manager.place(asked, grant_id, self.next_id(), "alice", now)

    def offer(self, run_id: str = "run-1", now: int = NOW, **order: object) -> Offer:
        self.grant(run_id, now)
        (offer,) = self.do(self.place(run_id, now, **order)).offers
        return offer

    def take(self, offer: Offer, now: int = NOW, **said: object) -> Outcome:
        order = LeaseOrder(offer.order.run_id, 60_000, (), SCOPE, offer_id=offer.offer_id)
        session = self.worker(offer.worker_id).session_epoch
        order = replace(order, **said)  # type: ignore[arg-type]
        return self.manager.grant_lease(
            offer.worker_id, session, offer.grant_id, order, self.next_id(), "5" * 64, now
        )

    def became(self, offer: Offer) -> OfferState:
        return self.manager.state.placing.ended[offer.offer_id].state

    def checked(self) -> None:
        assert audit(self.manager.state, self.manager.policy) == ()
