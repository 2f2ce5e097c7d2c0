"""Handlers of the worker's routes, and of the two that a key without a worker may call.

The worker's id comes from the proof, never from the body: a worker can speak only for itself. The
session's epoch and the lease's fence are in the body and are judged by the fleet.
"""

from typing import Final

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.client.lists import OrderList
from palyra_fleet.wire.models import (
    CompleteRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    LeaseAnswer,
    LeaseCommand,
    LeaseRequest,
    LeaseState,
    NonceAnswer,
    NonceRequest,
    RegisterAnswer,
    RegisterRequest,
)

MAX_SEQ: Final = 10**15 - 1
MAX_WAIT_MS: Final = 30_000


@answers.gives(NonceAnswer)
async def issue_nonce(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.issue_nonce(call.read(NonceRequest)))


@answers.gives(RegisterAnswer)
async def register(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.register(call.read(RegisterRequest), call.device_id))


@answers.gives(HeartbeatAnswer)
async def heartbeat(call: Call) -> web.StreamResponse:
    request = call.read(HeartbeatRequest)
    return answers.model(await call.service.heartbeat(call.identity.id, request))


@answers.gives(LeaseAnswer)
async def request_lease(call: Call) -> web.StreamResponse:
    request = call.read(LeaseRequest)
    return answers.model(await call.service.request_lease(call.identity.id, request))


@answers.gives(LeaseState)
async def start_lease(call: Call) -> web.StreamResponse:
    lease_id, command = call.part("lease_id"), call.read(LeaseCommand)
    return answers.model(await call.service.start_lease(call.identity.id, lease_id, command))


@answers.gives(LeaseState)
async def renew_lease(call: Call) -> web.StreamResponse:
    lease_id, command = call.part("lease_id"), call.read(LeaseCommand)
    return answers.model(await call.service.renew_lease(call.identity.id, lease_id, command))


@answers.gives(LeaseState)
async def complete_lease(call: Call) -> web.StreamResponse:
    lease_id, request = call.part("lease_id"), call.read(CompleteRequest)
    return answers.model(await call.service.complete_lease(call.identity.id, lease_id, request))


@answers.gives(OrderList)
async def orders(call: Call) -> web.StreamResponse:
    """Long poll: answers when there is an order, or with none when the wait is over. A key that
    is the worker's no more is refused at once."""
    after_seq = call.number("after_seq", default=0, least=0, most=MAX_SEQ)
    wait_ms = call.number("wait_ms", default=0, least=0, most=MAX_WAIT_MS)
    found = await call.service.orders(call.identity.id, after_seq, wait_ms, call.may_still)
    call.still()
    return answers.model(OrderList(items=found))
