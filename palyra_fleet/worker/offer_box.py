"""What a session was offered and has not answered yet, and whether it waits for more. No I/O.

The fleet keeps a run for one worker at a time, so the newest offer is the only one that may still
be open; an older one that nobody took has ended by then.
"""

import asyncio

from palyra_fleet.wire.placement_models import OfferModel


class OfferBox:
    """`waits` is what the heartbeats say."""

    def __init__(self) -> None:
        self.waits = False
        self._newest: OfferModel | None = None
        self._came = asyncio.Event()

    def put(self, offer: OfferModel) -> None:
        self._newest = offer
        self._came.set()

    def take(self) -> OfferModel | None:
        """What is there, if anything; it is answered now."""
        offer, self._newest = self._newest, None
        self._came.clear()
        return offer

    async def next(self) -> OfferModel:
        """The newest offer, once there is one. The worker waits no longer then."""
        while (offer := self.take()) is None:
            await self._came.wait()
        self.waits = False
        return offer
