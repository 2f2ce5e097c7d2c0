"""Handlers of the operator's routes about nodes and pairing. All say so where none are served.

Who asked is the principal that the token stands for; why is in the body.
"""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.api.changes import notes
from palyra_fleet.api.paging import DEFAULT_ROWS, MAX_ROWS, ListOf, cut
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.wire.models import ReasonRequest
from palyra_fleet.wire.node_models import (
    ApproveDevice,
    CapabilityRequestList,
    CapabilityRequestView,
    InvokeAnswer,
    InvokeRequest,
    NodeList,
    NodeView,
    PairingCodeRequest,
    PairingCodeView,
    PairingRequestList,
    PairingRequestView,
)


@answers.gives(answers.Gives(PairingCodeView, 201))
@notes(EventReason.PAIRING_CODE_MINTED)
async def mint_code(call: Call) -> web.StreamResponse:
    minted = await call.nodes.mint_code(call.identity.id, call.read(PairingCodeRequest))
    return answers.model(minted, status=201)


@answers.gives(PairingRequestList)
async def list_pairing_requests(call: Call) -> web.StreamResponse:
    """A page of the devices that asked to pair, the newest id first."""
    limit = _limit(call)
    found = call.nodes.pairing_requests(limit + 1, call.cursor(ListOf.PAIRING))
    page = cut(ListOf.PAIRING, found, lambda one: one.approval_id, limit)
    return answers.model(PairingRequestList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(PairingRequestView)
@notes(EventReason.PAIRING_APPROVED)
async def approve_device(call: Call) -> web.StreamResponse:
    asked = call.read(ApproveDevice)
    decided = await call.nodes.decide(
        call.identity.id,
        call.part("approval_id"),
        asked.reason,
        approve=True,
        replace=asked.replace_identity,
    )
    return answers.model(decided)


@answers.gives(PairingRequestView)
@notes(EventReason.PAIRING_REJECTED)
async def reject_device(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    decided = await call.nodes.decide(
        call.identity.id, call.part("approval_id"), reason, approve=False
    )
    return answers.model(decided)


@answers.gives(NodeList)
async def list_nodes(call: Call) -> web.StreamResponse:
    """A page of the nodes, the newest id first."""
    limit = _limit(call)
    found = call.nodes.nodes(limit + 1, call.cursor(ListOf.NODES))
    page = cut(ListOf.NODES, found, lambda one: one.device_id, limit)
    return answers.model(NodeList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(NodeView)
async def show_node(call: Call) -> web.StreamResponse:
    return answers.model(call.nodes.node(call.part("device_id")))


@answers.gives(InvokeAnswer)
@notes(EventReason.NODE_INVOKED)
async def invoke(call: Call) -> web.StreamResponse:
    asked = call.read(InvokeRequest)
    return answers.model(await call.nodes.invoke(call.identity.id, call.part("device_id"), asked))


@answers.gives(CapabilityRequestList)
async def list_capability_requests(call: Call) -> web.StreamResponse:
    """A page of what nodes were asked to do, the newest id first."""
    limit = _limit(call)
    found = call.nodes.capability_requests(limit + 1, call.cursor(ListOf.CAPABILITIES))
    page = cut(ListOf.CAPABILITIES, found, lambda one: one.request_id, limit)
    return answers.model(CapabilityRequestList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(CapabilityRequestView)
@notes(EventReason.CAPABILITY_APPROVED)
async def approve_capability(call: Call) -> web.StreamResponse:
    return _decided(call, approve=True)


@answers.gives(CapabilityRequestView)
@notes(EventReason.CAPABILITY_REJECTED)
async def reject_capability(call: Call) -> web.StreamResponse:
    return _decided(call, approve=False)


def _decided(call: Call, *, approve: bool) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    return answers.model(
        call.nodes.decide_capability(
            call.identity.id, call.part("request_id"), reason, approve=approve
        )
    )


def _limit(call: Call) -> int:
    return call.number("limit", default=DEFAULT_ROWS, least=1, most=MAX_ROWS)
