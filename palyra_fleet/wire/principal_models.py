"""The JSON bodies about principals: who operates the fleet, with which roles.

A token travels once, in `PrincipalToken`, and is not shown by its repr. A principal that is bound
to a subject of an issuer has no token of ours. Times are Unix milliseconds, lengths of time
milliseconds.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from palyra_fleet.wire.models import DurationMs, Name, ShortText, UnixMs, WireModel


class Role(StrEnum):
    """What a route asks for and a principal holds. A released spelling never changes."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


IssuerUrl = Annotated[str, StringConstraints(pattern=r"^https://[!-~]+$", max_length=2048)]
SubjectText = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,255}$")]


class Subject(WireModel):
    """An account of an issuer of tokens: its `iss` and `sub`, byte by byte."""

    issuer: IssuerUrl
    subject: SubjectText


class CreatePrincipal(WireModel):
    """Asks for somebody to be known: by a token that is made for it, or as the `subject` of an
    issuer. Without `ttl_ms` either holds until it is revoked."""

    name: Name
    roles: tuple[Role, ...] = Field(min_length=1, max_length=4)
    ttl_ms: DurationMs | None = None
    subject: Subject | None = None
    reason: ShortText


class PrincipalView(WireModel):
    """Somebody who is known."""

    name: Name
    roles: tuple[Role, ...]
    created_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs | None
    subject: Subject | None = None


class WhoAmI(WireModel):
    """The principal that a token stands for."""

    name: Name
    roles: tuple[Role, ...]


class PrincipalList(WireModel):
    items: tuple[PrincipalView, ...]


class PrincipalToken(WireModel):
    """A token that was just made; it is not shown again. None for the subject of an issuer."""

    principal: PrincipalView
    token: str | None = Field(repr=False)
