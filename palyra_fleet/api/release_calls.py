"""Handlers of the routes about releases that take two persons: ask, look, approve, withdraw.

Who asks and who approves are the principals that the tokens stand for; why is in the body.
"""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.client.lists import ReleaseRequestList
from palyra_fleet.wire.models import ReasonRequest, WorkerView
from palyra_fleet.wire.release_models import ReleaseRequestView


@answers.gives(answers.Gives(ReleaseRequestView, 201))
async def request_release(call: Call) -> web.StreamResponse:
    reason, worker_id = call.read(ReasonRequest).reason, call.part("worker_id")
    asked = await call.service.request_release(call.identity.id, worker_id, reason)
    return answers.model(asked, status=201)


@answers.gives(ReleaseRequestList)
async def list_requests(call: Call) -> web.StreamResponse:
    return answers.model(ReleaseRequestList(items=await call.service.release_requests()))


@answers.gives(WorkerView)
async def approve(call: Call) -> web.StreamResponse:
    reason, release_id = call.read(ReasonRequest).reason, call.part("release_id")
    released = await call.service.approve_release(call.identity.id, release_id, reason)
    return answers.model(released)


@answers.gives(answers.NOTHING)
async def withdraw(call: Call) -> web.StreamResponse:
    reason, release_id = call.read(ReasonRequest).reason, call.part("release_id")
    await call.service.withdraw_release(call.identity.id, release_id, reason)
    return answers.nothing()
