"""What an admin may do about principals, and who a token stands for."""

from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.models import ReasonRequest
from palyra_fleet.wire.principal_models import (
    CreatePrincipal,
    PrincipalList,
    PrincipalToken,
    PrincipalView,
    WhoAmI,
)


class PrincipalCalls(FleetClient):
    """Part of `OperatorClient`."""

    async def who_am_i(self) -> WhoAmI:
        return await self.call("GET", "/v1/whoami", WhoAmI)

    async def principals(self) -> tuple[PrincipalView, ...]:
        return (await self.call("GET", "/v1/principals", PrincipalList)).items

    async def create_principal(self, request: CreatePrincipal) -> PrincipalToken:
        """The one answer that holds the token."""
        return await self.call("POST", "/v1/principals", PrincipalToken, request)

    async def revoke_principal(self, name: str, reason: str) -> None:
        await self.send("POST", f"/v1/principals/{name}:revoke", ReasonRequest(reason=reason))

    async def rotate_principal(self, name: str, reason: str) -> PrincipalToken:
        """Another token in the place of the one before."""
        target = f"/v1/principals/{name}:rotate"
        return await self.call("POST", target, PrincipalToken, ReasonRequest(reason=reason))
