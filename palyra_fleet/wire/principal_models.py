"""The JSON bodies about principals: who operates the fleet, with which roles.

A token travels once, in `PrincipalToken`, and is not shown by its repr. Times are Unix
milliseconds, lengths of time milliseconds.
"""

from enum import StrEnum

from pydantic import Field

from palyra_fleet.wire.models import DurationMs, Name, ShortText, UnixMs, WireModel


class Role(StrEnum):
    """What a route asks for and a principal holds. A released spelling never changes."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class CreatePrincipal(WireModel):
    """Asks for somebody to be known. Without `ttl_ms` the token holds until it is revoked."""

    name: Name
    roles: tuple[Role, ...] = Field(min_length=1, max_length=4)
    ttl_ms: DurationMs | None = None
    reason: ShortText


class PrincipalView(WireModel):
    """Somebody who is known."""

    name: Name
    roles: tuple[Role, ...]
    created_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs | None


class WhoAmI(WireModel):
    """The principal that a token stands for."""

    name: Name
    roles: tuple[Role, ...]


class PrincipalList(WireModel):
    items: tuple[PrincipalView, ...]


class PrincipalToken(WireModel):
    """A token that was just made; it is not shown again."""

    principal: PrincipalView
    token: str = Field(repr=False)
