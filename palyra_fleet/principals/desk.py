"""PrincipalDesk: principals are created, revoked and given new tokens, each with its event.

What widens is recorded before it counts and what narrows counts before it is recorded, so that a
crash between the two leaves less, never more, than the log says. The event names who asked, about
whom and which roles; it holds no token and no digest of one. Who loses a token may have lost it to
somebody else: what was asked in that name and waits for another person's word is void. A revocation
that failed halfway is asked for again: the book knows the name no more, and what it asked is void.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from palyra_fleet.ledger.decision import Detail, EventReason
from palyra_fleet.principals.book import (
    Principal,
    PrincipalBook,
    PrincipalRefused,
    PrincipalUnknown,
    new_token,
    token_sha256,
)
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.principal_models import CreatePrincipal, PrincipalToken, PrincipalView

type RecordEvent = Callable[[EventReason, str, Detail], Awaitable[None]]
"""Takes reason, actor and detail; returns when the event is durable."""

type VoidRequests = Callable[[str, str, str], Awaitable[None]]
"""Takes the name of who asked, actor and reason; returns when it is durable."""


@dataclass(frozen=True, slots=True)
class PrincipalDesk:
    """Changes to the book. `clock` gives Unix milliseconds."""

    book: PrincipalBook
    record: RecordEvent
    void_requests: VoidRequests
    clock: Callable[[], int]

    def listed(self) -> tuple[PrincipalView, ...]:
        return tuple(view_of(principal) for principal in self.book.all())

    async def create(self, actor: str, asked: CreatePrincipal) -> PrincipalToken:
        """The one answer with the token."""
        now, token = self.clock(), None if asked.subject else new_token()
        principal = Principal(
            asked.name,
            frozenset(asked.roles),
            None if token is None else token_sha256(token),
            now,
            None if asked.ttl_ms is None else now + asked.ttl_ms,
            asked.subject,
        )
        _change(lambda: self.book.check_new(principal))
        detail = {**_about(principal), "why": asked.reason}
        await self.record(EventReason.PRINCIPAL_CREATED, actor, detail)
        _change(lambda: self.book.create(principal))
        return PrincipalToken(principal=view_of(principal), token=token)

    async def revoke(self, actor: str, name: str, reason: str) -> None:
        why = f"'{name}', who asked, was revoked"
        try:
            gone = _change(lambda: self.book.revoke(name))
        except FleetRefusal as refusal:
            if refusal.reason is FleetReason.PRINCIPAL_UNKNOWN:  # a call before got no further
                await self.void_requests(name, actor, why)
            raise
        detail = {**_about(gone), "why": reason}
        await self.record(EventReason.PRINCIPAL_REVOKED, actor, detail)
        await self.void_requests(name, actor, why)

    async def rotate(self, actor: str, name: str, reason: str) -> PrincipalToken:
        token = new_token()
        changed = _change(lambda: self.book.replace_token(name, token_sha256(token)))
        detail = {**_about(changed), "why": reason}
        await self.record(EventReason.PRINCIPAL_ROTATED, actor, detail)
        await self.void_requests(name, actor, f"'{name}', who asked, was given another token")
        return PrincipalToken(principal=view_of(changed), token=token)


def view_of(principal: Principal) -> PrincipalView:
    return PrincipalView(
        name=principal.name,
        roles=tuple(sorted(principal.roles)),
        created_at_unix_ms=principal.created_at_unix_ms,
        expires_at_unix_ms=principal.expires_at_unix_ms,
        subject=principal.subject,
    )


def _about(principal: Principal) -> Detail:
    about = {"principal": principal.name, "roles": " ".join(sorted(principal.roles))}
    if principal.subject is None:
        return about
    return {**about, **principal.subject.model_dump()}


def _change[T](act: Callable[[], T]) -> T:
    try:
        return act()
    except PrincipalUnknown as unknown:
        raise FleetRefusal(FleetReason.PRINCIPAL_UNKNOWN, str(unknown)) from unknown
    except PrincipalRefused as refused:
        raise FleetRefusal(FleetReason.PRINCIPAL_REFUSED, str(refused)) from refused
    except OSError as error:
        text = f"the principals cannot be saved: {error.strerror}; nothing was changed"
        raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, text) from error
