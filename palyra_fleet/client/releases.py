"""What an operator may do about releases that take two persons: ask, look, approve, withdraw."""

from palyra_fleet.client.lists import ReleaseRequestList
from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.models import ReasonRequest, WorkerView
from palyra_fleet.wire.release_models import ReleaseRequestView


class ReleaseCalls(FleetClient):
    """Requests for releases. A repeated call with a lost answer asks no second time."""

    async def request_release(self, worker_id: str, reason: str) -> ReleaseRequestView:
        target = f"/v1/workers/{worker_id}:request-release"
        asked = ReasonRequest(reason=reason)
        return await self.call("POST", target, ReleaseRequestView, asked, once=True)

    async def release_requests(self) -> tuple[ReleaseRequestView, ...]:
        """What is asked and not answered, the oldest first."""
        return (await self.call("GET", "/v1/release-requests", ReleaseRequestList)).items

    async def approve_release(self, release_id: str, reason: str) -> WorkerView:
        """Answers the worker, released."""
        target = f"/v1/release-requests/{release_id}:approve"
        return await self.call("POST", target, WorkerView, ReasonRequest(reason=reason), once=True)

    async def withdraw_release(self, release_id: str, reason: str) -> None:
        target = f"/v1/release-requests/{release_id}:withdraw"
        await self.send("POST", target, ReasonRequest(reason=reason))
