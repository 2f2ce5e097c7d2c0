"""`palyra-fleet run place` and `run offers`: an approved run for a worker that waits.

An offer is no lease yet. With `--wait` the command offers again, whenever nobody is there or an
offer was not taken, until a worker has the run or the time is up; also while the fleet is away.
"""

import asyncio
import time
from argparse import Namespace
from typing import Final

from palyra_fleet.cli.away import Told, fresh_client, passes
from palyra_fleet.cli.output import say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import FleetProblem, FleetUnavailable, OperatorClient
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.placement_models import OfferState, OfferView, PlaceRequest
from palyra_fleet.worker.artifact_arguments import transport_of

_LOOK_EVERY_S: Final = 0.25
_AWAY_S: Final = 1.0
_NOT_NOW: Final = frozenset({FleetReason.NO_WORKER, FleetReason.RUN_OFFERED})
"""Refusals that are over when a worker waits, or did not take what another asked for."""


async def list_offers(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.offers(), arguments.output)
    return ExitCode.DONE


async def place(arguments: Namespace, client: OperatorClient) -> ExitCode:
    request = PlaceRequest(
        run_id=arguments.run_id,
        ttl_ms=arguments.ttl_s * 1000,
        grant_id=arguments.grant,
        required_capabilities=tuple(arguments.capability),
        read_only=arguments.read_only,
        artifact_transport=await asyncio.to_thread(transport_of, arguments),
    )
    if arguments.wait is None:
        show_one(await client.place(request), arguments.output)
        return ExitCode.DONE
    offer = await _taken(arguments, client, request)
    show_one(offer, arguments.output)
    if offer.state is OfferState.TAKEN:
        return ExitCode.DONE
    say(f"no worker took run '{request.run_id}' within {arguments.wait} s")
    return ExitCode.NO


async def _taken(arguments: Namespace, client: OperatorClient, request: PlaceRequest) -> OfferView:
    """The last offer, when a worker took it or the time is up. A fleet that is away is asked again
    where it is then."""
    until_s = time.monotonic() + arguments.wait
    try:
        return await _offered_until_taken(client, request, until_s)
    except (FleetUnavailable, FleetProblem) as error:
        if not passes(error):
            raise
        say(f"the fleet is away ({error}); the run is placed once it is back")
    told = Told()
    while True:
        await asyncio.sleep(_AWAY_S)
        try:
            async with fresh_client(arguments) as fresh:
                return await _offered_until_taken(fresh, request, until_s)
        except Trouble as trouble:
            told.tell(trouble)
            if time.monotonic() >= until_s:
                raise
        except (FleetUnavailable, FleetProblem) as error:
            if not passes(error) or time.monotonic() >= until_s:
                raise


async def _offered_until_taken(
    client: OperatorClient, request: PlaceRequest, until_s: float
) -> OfferView:
    offer = await _offered(client, request, until_s)
    while offer.state is not OfferState.TAKEN and time.monotonic() < until_s:
        say(f"worker {offer.worker_id} did not take the run: {offer.state}")
        offer = await _offered(client, request, until_s)
    return offer


async def _offered(client: OperatorClient, request: PlaceRequest, until_s: float) -> OfferView:
    """The next offer, when it ended or the time is up."""
    offer = await _placed(client, request, until_s)
    while offer.state is OfferState.OPEN and time.monotonic() < until_s:
        await asyncio.sleep(_LOOK_EVERY_S)
        try:
            offer = await client.offer(offer.offer_id)
        except FleetProblem as problem:
            if problem.reason != FleetReason.OFFER_UNKNOWN:
                raise
            # the fleet was started anew, and has forgotten its offers
            return offer.model_copy(update={"state": OfferState.ENDED})
    return offer


async def _placed(client: OperatorClient, request: PlaceRequest, until_s: float) -> OfferView:
    """As soon as somebody waits; the refusal, when the time is up."""
    while True:
        try:
            return await client.place(request)
        except FleetProblem as problem:
            if problem.reason not in _NOT_NOW or time.monotonic() >= until_s:
                raise
        await asyncio.sleep(_LOOK_EVERY_S)
