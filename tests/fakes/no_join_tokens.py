"""The part of a fake fleet that is asked for join tokens, and has none."""

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.join_models import JoinTokenMinted, JoinTokenView, MintJoinToken


class NoJoinTokens:
    """Mixed into `FakeFleetService`."""

    def _enter(self, call: str) -> None:
        raise NotImplementedError

    async def mint_join_token(self, actor: str, request: MintJoinToken) -> JoinTokenMinted:
        self._enter("mint_join_token")
        raise FleetRefusal(FleetReason.COMMAND_INVALID, "this fleet takes no join tokens")

    async def join_tokens(self) -> tuple[JoinTokenView, ...]:
        self._enter("join_tokens")
        return ()

    async def revoke_join_token(self, actor: str, token_id: str, reason: str) -> None:
        self._enter("revoke_join_token")
        raise FleetRefusal(FleetReason.JOIN_UNKNOWN, "there is no such join token")
