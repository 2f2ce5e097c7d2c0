"""What a principal may do about join tokens."""

from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.join_models import (
    JoinTokenList,
    JoinTokenMinted,
    JoinTokenView,
    MintJoinToken,
)
from palyra_fleet.wire.models import ReasonRequest


class JoinTokenCalls(FleetClient):
    """Part of `OperatorClient`."""

    async def mint_join_token(self, request: MintJoinToken) -> JoinTokenMinted:
        """The one answer that holds the token."""
        return await self.call("POST", "/v1/join-tokens", JoinTokenMinted, request)

    async def join_tokens(self) -> tuple[JoinTokenView, ...]:
        return (await self.call("GET", "/v1/join-tokens", JoinTokenList)).items

    async def revoke_join_token(self, token_id: str, reason: str) -> None:
        await self.send("POST", f"/v1/join-tokens/{token_id}:revoke", ReasonRequest(reason=reason))
