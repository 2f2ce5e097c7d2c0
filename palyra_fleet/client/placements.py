"""What an operator may do about placing runs on workers that wait."""

from palyra_fleet.client.lists import OfferList
from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.placement_models import OfferView, PlaceRequest


class PlacementCalls(FleetClient):
    """Offers. A repeated call with a lost answer offers no second time."""

    async def place(self, request: PlaceRequest) -> OfferView:
        """Offer the run to the best worker that waits."""
        return await self.call("POST", "/v1/offers", OfferView, request, once=True)

    async def offers(self) -> tuple[OfferView, ...]:
        """Those that are open, the newest first."""
        return (await self.call("GET", "/v1/offers", OfferList)).items

    async def offer(self, offer_id: str) -> OfferView:
        """What became of it; the newest are remembered."""
        return await self.call("GET", f"/v1/offers/{offer_id}", OfferView)
