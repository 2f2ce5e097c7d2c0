"""The handler of `/metrics`: numbers for Prometheus, which sends a viewer's token."""

from dataclasses import replace

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.signals.metrics import CONTENT_TYPE, exposition


@answers.gives(answers.Gives(None, content_type="text/plain", form={"type": "string"}))
async def show(call: Call) -> web.StreamResponse:
    state = call.service.standing()
    if call.operations is not None:
        ends = {
            f"authority_{number}": one.expires_at_unix_ms
            for number, one in enumerate(call.operations.authorities())
        }
        state = replace(state, certificates=ends)
    body = exposition(call.service.counts, state)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
