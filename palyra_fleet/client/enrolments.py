"""The operator's calls about launchers, proxies and reference values, over the admin listener."""

from typing import Literal

from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.enrolment_models import (
    EnrolDeviceKeyRequest,
    EnrolmentList,
    EnrolmentView,
    ReferenceValueList,
    ReferenceValueView,
    WithdrawReferences,
)
from palyra_fleet.wire.models import EnrolKeyRequest, ReasonRequest, ReferenceValues

type Kind = Literal["launcher", "proxy"]

_PATHS: dict[Kind, str] = {"launcher": "/v1/launchers", "proxy": "/v1/proxies"}


class EnrolmentCalls(FleetClient):
    """Part of `OperatorClient`."""

    async def enrol(self, kind: Kind, request: EnrolKeyRequest) -> None:
        """A key, good on the fleet's own machine."""
        await self.send("POST", _PATHS[kind], request)

    async def enrol_launcher(self, request: EnrolKeyRequest) -> None:
        await self.enrol("launcher", request)

    async def enrol_proxy(self, request: EnrolKeyRequest) -> None:
        await self.enrol("proxy", request)

    async def enrol_device(self, kind: Kind, name: str, device_id: str) -> None:
        """The key of a paired machine, good on its connections."""
        request = EnrolDeviceKeyRequest(name=name, device_id=device_id)
        await self.send("POST", f"{_PATHS[kind]}:enrol-device", request)

    async def enrolments(self, kind: Kind) -> tuple[EnrolmentView, ...]:
        return (await self.call("GET", _PATHS[kind], EnrolmentList)).items

    async def take_back(self, kind: Kind, name: str, reason: str) -> None:
        await self.send("POST", f"{_PATHS[kind]}/{name}:revoke", ReasonRequest(reason=reason))

    async def add_reference_values(self, values: ReferenceValues) -> None:
        await self.send("POST", "/v1/reference-values", values)

    async def reference_values(self) -> tuple[ReferenceValueView, ...]:
        return (await self.call("GET", "/v1/reference-values", ReferenceValueList)).items

    async def withdraw_references(self, asked: WithdrawReferences) -> None:
        await self.send("POST", "/v1/reference-values:withdraw", asked)
