"""Handlers of the routes about join tokens."""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.wire.join_models import JoinTokenList, JoinTokenMinted, MintJoinToken
from palyra_fleet.wire.models import ReasonRequest


@answers.gives(answers.Gives(JoinTokenMinted, 201))
async def mint(call: Call) -> web.StreamResponse:
    made = await call.service.mint_join_token(call.identity.id, call.read(MintJoinToken))
    return answers.model(made, status=201)


@answers.gives(JoinTokenList)
async def list_tokens(call: Call) -> web.StreamResponse:
    return answers.model(JoinTokenList(items=await call.service.join_tokens()))


@answers.gives(answers.NOTHING)
async def revoke(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    await call.service.revoke_join_token(call.identity.id, call.part("token_id"), reason)
    return answers.nothing()
