"""The operator's calls about devices, certificates and the authority, over the admin listener."""

from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.certificate_models import CertificateList, CertificateView
from palyra_fleet.wire.models import ReasonRequest
from palyra_fleet.wire.node_models import (
    AuthorityList,
    AuthorityView,
    DeviceList,
    DeviceView,
    RotateDeviceRequest,
)


class DeviceCalls(FleetClient):
    """Part of `OperatorClient`."""

    async def devices(
        self, most: int | None = None, state: str | None = None, kind: str | None = None
    ) -> tuple[DeviceView, ...]:
        """Those that are as asked for, revoked ones too, the newest id first."""
        return await self.every("/v1/devices", DeviceList, most, state=state, kind=kind)

    async def device(self, device_id: str) -> DeviceView:
        return await self.call("GET", f"/v1/devices/{device_id}", DeviceView)

    async def rotate_device(self, device_id: str, asked: RotateDeviceRequest) -> DeviceView:
        """Demand a new certificate with a new key; those of now end at the deadline."""
        return await self.call("POST", f"/v1/devices/{device_id}:rotate", DeviceView, asked)

    async def end_device(self, device_id: str, reason: str, *, forget: bool) -> None:
        verb = "remove" if forget else "revoke"
        await self.send("POST", f"/v1/devices/{device_id}:{verb}", ReasonRequest(reason=reason))

    async def certificates(
        self,
        most: int | None = None,
        state: str | None = None,
        kind: str | None = None,
        device_id: str | None = None,
        expires_within_ms: int | None = None,
    ) -> tuple[CertificateView, ...]:
        """What the fleet issued and remembers, the newest first."""
        return await self.every(
            "/v1/certificates",
            CertificateList,
            most,
            state=state,
            kind=kind,
            device_id=device_id,
            expires_within_ms=None if expires_within_ms is None else str(expires_within_ms),
        )

    async def authorities(self) -> tuple[AuthorityView, ...]:
        return (await self.call("GET", "/v1/authorities", AuthorityList)).items

    async def rotate_authority(self, reason: str) -> tuple[AuthorityView, ...]:
        asked = ReasonRequest(reason=reason)
        return (await self.call("POST", "/v1/authorities:rotate", AuthorityList, asked)).items
