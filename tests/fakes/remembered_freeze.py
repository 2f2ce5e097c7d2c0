"""The fake fleet's kill switch: it only remembers what was said last."""

from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.wire.freeze_models import FreezeRequest, FreezeView, UnfreezeRequest


class RemembersFreeze(FleetService):
    """Mixed into `FakeFleetService`."""

    is_frozen = FreezeView(leases=False, egress=False)

    async def frozen(self) -> FreezeView:
        return self.is_frozen

    async def freeze(self, actor: str, request: FreezeRequest) -> FreezeView:
        self.is_frozen = FreezeView(leases=True, egress=request.egress, by=actor, since_unix_ms=1)
        return self.is_frozen

    async def unfreeze(self, actor: str, request: UnfreezeRequest) -> FreezeView:
        self.is_frozen = FreezeView(leases=request.egress_only, egress=False, by=actor)
        return self.is_frozen
