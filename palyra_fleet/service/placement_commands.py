"""Placing runs on workers that wait, and what became of it. Mixed into `FleetService`.

An offer is told to its worker once it is durable in the event log; the offer itself lives in memory
and ends with the fleet's process, like the orders. Times: Unix ms.
"""

import heapq

from ulid import ULID

from palyra_fleet.ledger.wire_views import offer_view, placement_order
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.operator_commands import MAX_LISTED, OperatorCommands
from palyra_fleet.wire.placement_models import DeclineRequest, OfferView, PlaceRequest


class PlacementCommands(OperatorCommands):
    """Offers: made, looked at, declined. They are taken by asking for the lease."""

    async def place(self, actor: str, request: PlaceRequest) -> OfferView:
        """Offer the run to the best worker that waits."""
        order = placement_order(request)

        async def act(now: int) -> OfferView:
            self._refuse_on_ledger_problem()
            grant_id = request.grant_id
            if grant_id is None:
                grant = self._manager.state.usable_grant(order.run_id, now)
                grant_id = None if grant is None else grant.grant_id
            offer_id = str(ULID.from_timestamp(now))
            await self._settle(self._manager.place(order, grant_id, offer_id, actor, now))
            return offer_view(self._manager.state.placing.offers[offer_id])

        return await self._locked(act)

    async def offers(self) -> tuple[OfferView, ...]:
        """Those that are open, the newest first, a bounded number."""
        await self._caught_up()
        open_offers = self._manager.state.placing.offers
        newest = heapq.nlargest(MAX_LISTED, open_offers)  # ids are ULIDs
        return tuple(offer_view(open_offers[offer_id]) for offer_id in newest)

    async def offer(self, offer_id: str) -> OfferView:
        """An offer, open or ended, of the newest."""
        await self._caught_up()
        placing = self._manager.state.placing
        found = placing.offers.get(offer_id) or placing.ended.get(offer_id)
        if found is None:
            text = f"offer '{offer_id}' is not known, or no longer"
            raise FleetRefusal(FleetReason.OFFER_UNKNOWN, text)
        return offer_view(found)

    def waits(self, worker_id: str) -> bool:
        """Whether the worker waits and could be offered a run now."""
        return self._manager.state.placing.waits(worker_id)

    def waiting(self) -> int:
        """How many workers wait."""
        return self._manager.state.placing.waiting

    def offer_to(self, worker_id: str) -> OfferView | None:
        """The run that is kept for this worker, if one is."""
        placing = self._manager.state.placing
        offer_id = placing.offer_by_worker.get(worker_id)
        return None if offer_id is None else offer_view(placing.offers[offer_id])

    async def decline_offer(self, worker_id: str, offer_id: str, request: DeclineRequest) -> None:
        """The worker does not take it."""

        async def act(now: int) -> None:
            await self._settle(
                self._manager.decline(
                    worker_id, request.session_epoch, offer_id, request.reason, now
                )
            )

        await self._locked(act)
