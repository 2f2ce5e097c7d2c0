"""Handlers of the routes about principals: who I am, who is known, and changes by admins."""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.wire.models import ReasonRequest
from palyra_fleet.wire.principal_models import (
    CreatePrincipal,
    PrincipalList,
    PrincipalToken,
    WhoAmI,
)


@answers.gives(WhoAmI)
async def who_am_i(call: Call) -> web.StreamResponse:
    identity = call.identity
    return answers.model(WhoAmI(name=identity.id, roles=tuple(sorted(identity.roles))))


@answers.gives(PrincipalList)
async def list_principals(call: Call) -> web.StreamResponse:
    return answers.model(PrincipalList(items=call.principals.listed()))


@answers.gives(answers.Gives(PrincipalToken, 201))
async def create(call: Call) -> web.StreamResponse:
    made = await call.principals.create(call.identity.id, call.read(CreatePrincipal))
    return answers.model(made, status=201)


@answers.gives(answers.NOTHING)
async def revoke(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    await call.principals.revoke(call.identity.id, call.part("name"), reason)
    return answers.nothing()


@answers.gives(PrincipalToken)
async def rotate(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    return answers.model(await call.principals.rotate(call.identity.id, call.part("name"), reason))
