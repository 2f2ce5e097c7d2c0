"""The operator's calls about nodes, over the admin listener."""

from typing import Final

from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.models import ReasonRequest
from palyra_fleet.wire.node_models import (
    ApproveDevice,
    CapabilityRequestList,
    CapabilityRequestView,
    InvokeAnswer,
    InvokeRequest,
    NodeList,
    NodeView,
    PairingCodeRequest,
    PairingCodeView,
    PairingRequestList,
    PairingRequestView,
)

INVOKE_WAITS_MS: Final = 30_000
"""As long as the fleet waits for the node."""


class NodeCalls(FleetClient):
    """Part of `OperatorClient`."""

    async def mint_pairing_code(self, request: PairingCodeRequest) -> PairingCodeView:
        return await self.call("POST", "/v1/pairing/codes", PairingCodeView, request)

    async def pairing_requests(self, most: int | None = None) -> tuple[PairingRequestView, ...]:
        """The newest id first."""
        return await self.every("/v1/pairing/requests", PairingRequestList, most)

    async def approve_device(self, approval_id: str, asked: ApproveDevice) -> PairingRequestView:
        target = f"/v1/pairing/requests/{approval_id}:approve"
        return await self.call("POST", target, PairingRequestView, asked)

    async def reject_device(self, approval_id: str, reason: str) -> PairingRequestView:
        target = f"/v1/pairing/requests/{approval_id}:reject"
        return await self.call("POST", target, PairingRequestView, ReasonRequest(reason=reason))

    async def nodes(self, most: int | None = None) -> tuple[NodeView, ...]:
        """The newest id first."""
        return await self.every("/v1/nodes", NodeList, most)

    async def node(self, device_id: str) -> NodeView:
        return await self.call("GET", f"/v1/nodes/{device_id}", NodeView)

    async def invoke(self, device_id: str, request: InvokeRequest) -> InvokeAnswer:
        target = f"/v1/nodes/{device_id}:invoke"
        return await self.call("POST", target, InvokeAnswer, request, extra_wait_ms=INVOKE_WAITS_MS)

    async def capability_requests(
        self, most: int | None = None
    ) -> tuple[CapabilityRequestView, ...]:
        """The newest id first."""
        return await self.every("/v1/capability-requests", CapabilityRequestList, most)

    async def decide_capability(
        self, request_id: str, reason: str, *, approve: bool
    ) -> CapabilityRequestView:
        target = f"/v1/capability-requests/{request_id}:{'approve' if approve else 'reject'}"
        return await self.call("POST", target, CapabilityRequestView, ReasonRequest(reason=reason))
