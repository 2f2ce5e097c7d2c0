"""The JSON twins of the pages, with the published paths and shapes, and what the pages' buttons do.

Every change takes a reason, carries the name of who is signed in, and answers with what is now so.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web
from pydantic import BaseModel

from palyra_fleet.api.changes import notes
from palyra_fleet.api.paging import ListOf, cut
from palyra_fleet.console.envelope_models import gives, gives_page
from palyra_fleet.console.envelopes import envelope, page
from palyra_fleet.console.gate import ConsoleCall, ConsoleHandler
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.wire.freeze_models import FreezeRequest, FreezeView, UnfreezeRequest
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.models import (
    DrainOneRequest,
    DrainRequest,
    GrantRequest,
    GrantView,
    LeaseState,
    ReasonRequest,
    WorkerView,
)
from palyra_fleet.wire.node_models import (
    ApproveDevice,
    CapabilityRequestView,
    DeviceView,
    InvokeAnswer,
    InvokeRequest,
    NodeView,
    PairingCodeRequest,
    PairingCodeView,
    PairingRequestView,
    RotateDeviceRequest,
)
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.wire.release_models import ReleaseRequestView

type WorkerChange = Callable[[str, str, str], Awaitable[WorkerView]]


@gives_page("nodes", NodeView)
async def console_nodes_list_handler(call: ConsoleCall) -> web.StreamResponse:
    """Registered nodes, page by page."""
    find = call.desk.nodes.nodes
    return _paged(call, "nodes", ListOf.NODES, find, lambda node: node.device_id)


@gives("Node", node=NodeView)
async def show_node(call: ConsoleCall) -> web.StreamResponse:
    return envelope(node=call.desk.nodes.node(call.part("device_id")))


@gives_page("pairing_requests", PairingRequestView)
async def list_pairing_requests(call: ConsoleCall) -> web.StreamResponse:
    find = call.desk.nodes.pairing_requests
    return _paged(call, "pairing_requests", ListOf.PAIRING, find, lambda one: one.approval_id)


@gives_page("pending", PairingRequestView)
async def list_pending(call: ConsoleCall) -> web.StreamResponse:
    """Devices that wait for somebody's word."""
    find = partial(call.desk.nodes.pairing_requests, waiting=True)
    return _paged(call, "pending", ListOf.PAIRING, find, lambda one: one.approval_id)


@gives_page("devices", DeviceView)
async def list_devices(call: ConsoleCall) -> web.StreamResponse:
    """Devices that paired, revoked ones too, page by page."""
    find = call.desk.nodes.devices
    return _paged(call, "devices", ListOf.DEVICES, find, lambda one: one.device_id)


@gives("Device", device=DeviceView)
async def show_device(call: ConsoleCall) -> web.StreamResponse:
    return envelope(device=call.desk.nodes.device(call.part("device_id")))


@gives("Device", device=DeviceView)
@notes(EventReason.DEVICE_ROTATION_DEMANDED)
async def rotate_device(call: ConsoleCall) -> web.StreamResponse:
    """Demand that the device renews its certificate with a new key, within a deadline."""
    asked, device_id = call.read(RotateDeviceRequest), call.part("device_id")
    return envelope(device=await call.desk.nodes.rotate_device(call.actor, device_id, asked))


@gives("PairingCode", 201, pairing_code=PairingCodeView)
@notes(EventReason.PAIRING_CODE_MINTED)
async def mint_code(call: ConsoleCall) -> web.StreamResponse:
    """The one answer with the code."""
    minted = await call.desk.nodes.mint_code(call.actor, call.read(PairingCodeRequest))
    return envelope(201, pairing_code=minted)


@gives("PairingRequest", pairing_request=PairingRequestView)
@notes(EventReason.PAIRING_APPROVED)
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


@gives("PairingRequest", pairing_request=PairingRequestView)
@notes(EventReason.PAIRING_REJECTED)
async def reject_pairing(call: ConsoleCall) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    approval_id = call.part("approval_id")
    decided = await call.desk.nodes.decide(call.actor, approval_id, reason, approve=False)
    return envelope(pairing_request=decided)


@gives("DeviceRevoked", device_id=str, revoked=bool)
@notes(EventReason.DEVICE_REVOKED)
async def revoke_device(call: ConsoleCall) -> web.StreamResponse:
    reason, device_id = call.read(ReasonRequest).reason, call.part("device_id")
    await call.desk.nodes.revoke_device(call.actor, device_id, reason)
    return envelope(device_id=device_id, revoked=True)


@gives("DeviceRemoved", device_id=str, removed=bool)
@notes(EventReason.DEVICE_REMOVED)
async def remove_device(call: ConsoleCall) -> web.StreamResponse:
    reason, device_id = call.read(ReasonRequest).reason, call.part("device_id")
    await call.desk.nodes.remove_device(call.actor, device_id, reason)
    return envelope(device_id=device_id, removed=True)


@gives("Invoked", result=InvokeAnswer)
@notes(EventReason.NODE_INVOKED)
async def invoke(call: ConsoleCall) -> web.StreamResponse:
    asked = call.read(InvokeRequest)
    return envelope(result=await call.desk.nodes.invoke(call.actor, call.part("device_id"), asked))


def decide_capability(*, approve: bool) -> ConsoleHandler:
    """The handler that agrees to what a node was asked to do, or does not."""
    decided = EventReason.CAPABILITY_APPROVED if approve else EventReason.CAPABILITY_REJECTED

    @gives("CapabilityRequest", capability_request=CapabilityRequestView)
    @notes(decided)
    async def handler(call: ConsoleCall) -> web.StreamResponse:
        reason = call.read(ReasonRequest).reason
        request_id = call.part("request_id")
        decided = call.desk.nodes.decide_capability(call.actor, request_id, reason, approve=approve)
        return envelope(capability_request=decided)

    return handler


def change_worker(choose: Callable[[FleetService], WorkerChange]) -> ConsoleHandler:
    """The handler of a change to one worker that takes only a reason."""

    @gives("Worker", worker=WorkerView)
    async def handler(call: ConsoleCall) -> web.StreamResponse:
        reason = call.read(ReasonRequest).reason
        change = choose(call.desk.service)
        return envelope(worker=await change(call.actor, call.part("worker_id"), reason))

    return handler


def reattest(*, new_key: bool) -> ConsoleHandler:
    """The handler that demands newer evidence of a worker, under a new key or under any."""

    @gives("Worker", worker=WorkerView)
    async def handler(call: ConsoleCall) -> web.StreamResponse:
        asked = ReattestRequest(reason=call.read(ReasonRequest).reason, new_key=new_key)
        worker_id = call.part("worker_id")
        return envelope(worker=await call.desk.service.reattest(call.actor, worker_id, asked))

    return handler


@gives("ReleaseRequest", 201, release_request=ReleaseRequestView)
async def request_release(call: ConsoleCall) -> web.StreamResponse:
    reason, worker_id = call.read(ReasonRequest).reason, call.part("worker_id")
    asked = await call.desk.service.request_release(call.actor, worker_id, reason)
    return envelope(201, release_request=asked)


@gives("Worker", worker=WorkerView)
async def approve_release(call: ConsoleCall) -> web.StreamResponse:
    reason, release_id = call.read(ReasonRequest).reason, call.part("release_id")
    released = await call.desk.service.approve_release(call.actor, release_id, reason)
    return envelope(worker=released)


@gives("ReleaseWithdrawn", release_id=str, withdrawn=bool)
async def withdraw_release(call: ConsoleCall) -> web.StreamResponse:
    reason, release_id = call.read(ReasonRequest).reason, call.part("release_id")
    await call.desk.service.withdraw_release(call.actor, release_id, reason)
    return envelope(release_id=release_id, withdrawn=True)


@gives("Worker", worker=WorkerView)
async def label_worker(call: ConsoleCall) -> web.StreamResponse:
    asked, worker_id = call.read(LabelRequest), call.part("worker_id")
    return envelope(worker=await call.desk.service.label(call.actor, worker_id, asked))


@gives("Worker", worker=WorkerView)
async def drain_worker(call: ConsoleCall) -> web.StreamResponse:
    asked, worker_id = call.read(DrainRequest), call.part("worker_id")
    drained = await call.desk.service.drain(call.actor, worker_id, asked.reason, asked.deadline_ms)
    return envelope(worker=drained)


@gives("Worker", worker=WorkerView)
async def drain_one(call: ConsoleCall) -> web.StreamResponse:
    """The published path, which names the worker in the body."""
    asked = call.read(DrainOneRequest)
    service = call.desk.service
    drained = await service.drain(call.actor, asked.worker_id, asked.reason, asked.deadline_ms)
    return envelope(worker=drained)


@gives("Reaped", reaped=bool)
async def reap_expired(call: ConsoleCall) -> web.StreamResponse:
    """Settle every deadline that has passed; the fleet does so by itself all the time."""
    await call.desk.service.reap()
    return envelope(reaped=True)


def freeze(*, egress: bool) -> ConsoleHandler:
    """The handler of the kill switch, for new leases or for all egress with them."""

    @gives("Freeze", freeze=FreezeView)
    async def handler(call: ConsoleCall) -> web.StreamResponse:
        asked = FreezeRequest(reason=call.read(ReasonRequest).reason, egress=egress)
        return envelope(freeze=await call.desk.service.freeze(call.actor, asked))

    return handler


def unfreeze(*, egress_only: bool) -> ConsoleHandler:
    """The handler that lets what runs go on, and new leases too unless for egress only."""

    @gives("Freeze", freeze=FreezeView)
    async def handler(call: ConsoleCall) -> web.StreamResponse:
        asked = UnfreezeRequest(reason=call.read(ReasonRequest).reason, egress_only=egress_only)
        return envelope(freeze=await call.desk.service.unfreeze(call.actor, asked))

    return handler


@gives("Lease", lease=LeaseState)
async def revoke_lease(call: ConsoleCall) -> web.StreamResponse:
    reason, lease_id = call.read(ReasonRequest).reason, call.part("lease_id")
    return envelope(lease=await call.desk.service.revoke_lease(call.actor, lease_id, reason))


@gives("Grant", 201, grant=GrantView)
async def create_grant(call: ConsoleCall) -> web.StreamResponse:
    granted = await call.desk.service.create_grant(call.actor, call.read(GrantRequest))
    return envelope(201, grant=granted)


@gives("GrantWithdrawn", grant_id=str, withdrawn=bool)
async def withdraw_grant(call: ConsoleCall) -> web.StreamResponse:
    reason, grant_id = call.read(ReasonRequest).reason, call.part("grant_id")
    await call.desk.service.withdraw_grant(call.actor, grant_id, reason)
    return envelope(grant_id=grant_id, withdrawn=True)


def _paged[Item: BaseModel](
    call: ConsoleCall,
    name: str,
    list_of: ListOf,
    find: Callable[[int, str | None], tuple[Item, ...]],
    key: Callable[[Item], str],
) -> web.Response:
    limit = call.limit()
    found = find(limit + 1, call.cursor(list_of))
    return page(name, cut(list_of, found, key, limit), limit)


@gives("EventsVerified", entries=int)
async def verify_events(call: ConsoleCall) -> web.StreamResponse:
    return envelope(entries=await call.desk.service.verify_events())
