"""The handler of `/openapi.json`: what this API is, for programs. It is no secret, but it is served
on the admin listener only, where tools look for it."""

from typing import Final

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call

DOCUMENT: Final = web.AppKey("palyra-openapi", bytes)


@answers.gives(answers.Gives(None, form={"type": "object", "required": ["openapi"]}))
async def describe(call: Call) -> web.StreamResponse:
    body = call.request.app[DOCUMENT]
    return web.Response(body=body, content_type="application/json")
