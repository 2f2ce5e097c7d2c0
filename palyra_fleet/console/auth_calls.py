"""Signing in and out. The token is in the one request that signs in; afterwards the browser holds
the session's cookie, which no script can read."""

from typing import Final

from aiohttp import web
from pydantic import Field

from palyra_fleet.console.envelope_models import gives
from palyra_fleet.console.envelopes import envelope
from palyra_fleet.console.gate import COOKIE, ConsoleCall
from palyra_fleet.console.sessions import LONGEST_MS, ConsoleSession
from palyra_fleet.issuers.tokens import MAX_TOKEN_BYTES
from palyra_fleet.wire.models import WireModel
from palyra_fleet.wire.principal_models import Role

_SESSION: Final = {
    "principal": str,
    "roles": tuple[Role, ...],
    "csrf_token": str,
    "expires_at_unix_ms": int,
}


class SignIn(WireModel):
    """A principal's token."""

    token: str = Field(repr=False, min_length=1, max_length=MAX_TOKEN_BYTES)


@gives("Session", **_SESSION)
async def sign_in(call: ConsoleCall) -> web.StreamResponse:
    """Wrong tokens are rate limited per address, with the same answer each time."""
    desk, now = call.desk, call.desk.clock()
    token = call.read(SignIn).token
    address = call.request.remote or ""
    believed = desk.tokens.believed(f"Bearer {token}", address, now)
    desk.sessions.end(call.request.cookies.get(COOKIE))
    secret, session = desk.sessions.begin(believed.principal, now, believed.until_unix_ms)
    response = _about(session)
    response.set_cookie(
        COOKIE,
        secret,
        max_age=LONGEST_MS // 1000,
        path="/console",
        httponly=True,
        samesite="Strict",
        secure=call.request.secure,
    )
    return response


@gives("Session", **_SESSION)
async def who_is_signed_in(call: ConsoleCall) -> web.StreamResponse:
    return _about(call.signed_in)


@gives("SignedOut", signed_out=bool)
async def sign_out(call: ConsoleCall) -> web.StreamResponse:
    call.desk.sessions.end(call.request.cookies.get(COOKIE))
    response = envelope(signed_out=True)
    response.del_cookie(COOKIE, path="/console", httponly=True, samesite="Strict")
    return response


def _about(session: ConsoleSession) -> web.Response:
    return envelope(
        principal=session.principal.name,
        roles=sorted(session.principal.roles),
        csrf_token=session.csrf_token,
        expires_at_unix_ms=session.ends_at_unix_ms(),
    )
