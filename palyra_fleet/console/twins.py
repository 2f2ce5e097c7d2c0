"""The JSON twins of the pages, with the published paths and shapes, and what the pages' buttons do.

Every change takes a reason, carries the name of who is signed in, and answers with what is now so.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from palyra_fleet.console.envelopes import envelope, page
from palyra_fleet.console.gate import ConsoleCall, ConsoleHandler
from palyra_fleet.service import FleetService
from palyra_fleet.wire.models import DrainRequest, GrantRequest, ReasonRequest, WorkerView
from palyra_fleet.wire.node_models import ApproveDevice, InvokeRequest, PairingCodeRequest

MOST: Final = 1000

type WorkerChange = Callable[[str, str, str], Awaitable[WorkerView]]


async def console_nodes_list_handler(call: ConsoleCall) -> web.StreamResponse:
    """Every registered node."""
    found = call.desk.nodes.nodes(MOST)
    return page("nodes", found, MOST, has_more=len(found) == MOST)


async def show_node(call: ConsoleCall) -> web.StreamResponse:
    return envelope(node=call.desk.nodes.node(call.part("device_id")))


async def list_pairing_requests(call: ConsoleCall) -> web.StreamResponse:
    found = call.desk.nodes.pairing_requests(MOST)
    return page("pairing_requests", found, MOST, has_more=len(found) == MOST)


async def list_pending(call: ConsoleCall) -> web.StreamResponse:
    """Devices that wait for somebody's word."""
    found = [
        request
        for request in call.desk.nodes.pairing_requests(MOST)
        if request.state == "pending_approval"
    ]
    return page("pending", found, MOST, has_more=False)


async def mint_code(call: ConsoleCall) -> web.StreamResponse:
    """The one answer with the code."""
    minted = await call.desk.nodes.mint_code(call.actor, call.read(PairingCodeRequest))
    return envelope(201, pairing_code=minted)


async def approve_pairing(call: ConsoleCall) -> web.StreamResponse:
    asked = call.read(ApproveDevice)
    decided = await call.desk.nodes.decide(
        call.actor,
        call.part("approval_id"),
        asked.reason,
        approve=True,
        replace=asked.replace_identity,
    )
    return envelope(pairing_request=decided)


async def reject_pairing(call: ConsoleCall) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    approval_id = call.part("approval_id")
    decided = await call.desk.nodes.decide(call.actor, approval_id, reason, approve=False)
    return envelope(pairing_request=decided)


async def revoke_device(call: ConsoleCall) -> web.StreamResponse:
    reason, device_id = call.read(ReasonRequest).reason, call.part("device_id")
    await call.desk.nodes.revoke_device(call.actor, device_id, reason)
    return envelope(device_id=device_id, revoked=True)


async def remove_device(call: ConsoleCall) -> web.StreamResponse:
    reason, device_id = call.read(ReasonRequest).reason, call.part("device_id")
    await call.desk.nodes.remove_device(call.actor, device_id, reason)
    return envelope(device_id=device_id, removed=True)


async def invoke(call: ConsoleCall) -> web.StreamResponse:
    asked = call.read(InvokeRequest)
    return envelope(result=await call.desk.nodes.invoke(call.actor, call.part("device_id"), asked))


def decide_capability(*, approve: bool) -> ConsoleHandler:
    """The handler that agrees to what a node was asked to do, or does not."""

    async def handler(call: ConsoleCall) -> web.StreamResponse:
        reason = call.read(ReasonRequest).reason
        request_id = call.part("request_id")
        decided = call.desk.nodes.decide_capability(call.actor, request_id, reason, approve=approve)
        return envelope(capability_request=decided)

    return handler


def change_worker(choose: Callable[[FleetService], WorkerChange]) -> ConsoleHandler:
    """The handler of a change to one worker that takes only a reason."""

    async def handler(call: ConsoleCall) -> web.StreamResponse:
        reason = call.read(ReasonRequest).reason
        change = choose(call.desk.service)
        return envelope(worker=await change(call.actor, call.part("worker_id"), reason))

    return handler


async def drain_worker(call: ConsoleCall) -> web.StreamResponse:
    asked, worker_id = call.read(DrainRequest), call.part("worker_id")
    drained = await call.desk.service.drain(call.actor, worker_id, asked.reason, asked.deadline_ms)
    return envelope(worker=drained)


async def reap_expired(call: ConsoleCall) -> web.StreamResponse:
    """Settle every deadline that has passed; the fleet does so by itself all the time."""
    await call.desk.service.reap()
    return envelope(reaped=True)


async def revoke_lease(call: ConsoleCall) -> web.StreamResponse:
    reason, lease_id = call.read(ReasonRequest).reason, call.part("lease_id")
    return envelope(lease=await call.desk.service.revoke_lease(call.actor, lease_id, reason))


async def create_grant(call: ConsoleCall) -> web.StreamResponse:
    granted = await call.desk.service.create_grant(call.actor, call.read(GrantRequest))
    return envelope(201, grant=granted)


async def withdraw_grant(call: ConsoleCall) -> web.StreamResponse:
    reason, grant_id = call.read(ReasonRequest).reason, call.part("grant_id")
    await call.desk.service.withdraw_grant(call.actor, grant_id, reason)
    return envelope(grant_id=grant_id, withdrawn=True)


async def verify_events(call: ConsoleCall) -> web.StreamResponse:
    return envelope(entries=await call.desk.service.verify_events())
