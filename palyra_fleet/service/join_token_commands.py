"""What principals may ask about join tokens: mint, list, take back. Each change leaves an event.

What lets in is recorded before it counts, and what keeps out counts before it is recorded, so that
a crash between the two leaves less, never more, than the log says. No event holds a token.
"""

import asyncio

from ulid import ULID

from palyra_fleet.attestation.attestors.join_token import JoinTokenAttestor
from palyra_fleet.attestation.join_tokens import JoinToken, NewToken
from palyra_fleet.ledger.decision import Decision, Detail, EventReason, LedgerEvent
from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal
from palyra_fleet.service.core import FleetCore
from palyra_fleet.wire.join_models import JoinTokenMinted, JoinTokenView, MintJoinToken
from palyra_fleet.wire.labels import sorted_labels, written


class JoinTokenCommands(FleetCore):
    """Mixed into `FleetService`."""

    async def mint_join_token(self, actor: str, request: MintJoinToken) -> JoinTokenMinted:
        """Refused unless the settings turn the attestor on."""
        if JoinTokenAttestor.kind not in self._attestors:
            text = "this fleet takes no join tokens; add [attestors.join_token] to its settings"
            raise FleetRefusal(FleetReason.COMMAND_INVALID, text)

        async def act(now: int) -> JoinTokenMinted:
            asked = NewToken(
                token_id=str(ULID.from_timestamp(now)),
                identity=request.identity,
                minted_by=actor,
                ttl_ms=request.ttl_ms,
                session_ms=request.session_ms,
                labels=request.labels,
            )
            detail: Detail = {
                "token_id": asked.token_id,
                "identity": asked.identity,
                "expires_at_unix_ms": now + asked.ttl_ms,
                "labels": written(sorted_labels(request.labels)) or None,
                "why": request.reason,
            }
            await self._record(EventReason.JOIN_MINTED, actor, detail, now)
            minted = await asyncio.to_thread(self._join_tokens.mint, asked, now)
            if isinstance(minted, Refusal):
                raise FleetRefusal.of(minted)
            text, token = minted
            return JoinTokenMinted(join_token=_view(token), token=text)

        return await self._locked(act)

    async def revoke_join_token(self, actor: str, token_id: str, reason: str) -> None:
        """What a worker was admitted with holds until its attestation ends; quarantine it to stop
        it now."""

        async def act(now: int) -> None:
            gone = await asyncio.to_thread(self._join_tokens.revoke, token_id)
            if gone is None:
                text = f"there is no join token '{token_id}'"
                raise FleetRefusal(FleetReason.JOIN_UNKNOWN, text)
            detail: Detail = {"token_id": token_id, "identity": gone.identity, "why": reason}
            await self._record(EventReason.JOIN_REVOKED, actor, detail, now)

        await self._locked(act)

    async def join_tokens(self) -> tuple[JoinTokenView, ...]:
        """Newest first."""
        return tuple(_view(token) for token in self._join_tokens.all())

    async def _record(self, reason: EventReason, actor: str, detail: Detail, now: int) -> None:
        await self._settle(Decision(now, events=(LedgerEvent(reason, actor, detail=detail),)))


def _view(token: JoinToken) -> JoinTokenView:
    kept = token.model_dump(exclude={"token_sha256", "purpose"})
    return JoinTokenView.model_validate(kept)
