"""Handlers of the routes about placing: operators offer a run, a worker declines one.

A worker takes what it is offered by asking for the lease. Who placed and who declined are the
principal and the worker that the credentials stand for.
"""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.client.lists import OfferList
from palyra_fleet.wire.placement_models import DeclineRequest, OfferView, PlaceRequest


@answers.gives(answers.Gives(OfferView, 201))
async def place(call: Call) -> web.StreamResponse:
    offered = await call.service.place(call.identity.id, call.read(PlaceRequest))
    return answers.model(offered, status=201)


@answers.gives(OfferList)
async def list_offers(call: Call) -> web.StreamResponse:
    return answers.model(OfferList(items=await call.service.offers()))


@answers.gives(OfferView)
async def show_offer(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.offer(call.part("offer_id")))


@answers.gives(answers.NOTHING)
async def decline(call: Call) -> web.StreamResponse:
    request, offer_id = call.read(DeclineRequest), call.part("offer_id")
    await call.service.decline_offer(call.identity.id, offer_id, request)
    return answers.nothing()
