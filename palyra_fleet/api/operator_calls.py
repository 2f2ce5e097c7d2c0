"""Handlers of the operator's routes. Every change carries who asked and why.

Who asked is the principal that the token stands for, never a field of the body; why is in the body
and ends up in the event log. Lists are bounded by `limit`.
"""

from collections.abc import Awaitable, Callable

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.api.paging import DEFAULT_ROWS, MAX_ROWS, ListOf, cut
from palyra_fleet.client.lists import (
    ApprovalRuleList,
    GrantList,
    LeaseList,
    ViolationList,
    WorkerList,
)
from palyra_fleet.ledger.worker_filter import ATTESTORS, ELIGIBILITIES, STATES, WorkerFilter
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.wire.freeze_models import FreezeRequest, FreezeView, UnfreezeRequest
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.lease_models import LeasesThat
from palyra_fleet.wire.models import (
    DrainRequest,
    GrantRequest,
    GrantView,
    LeaseState,
    ReasonRequest,
    WorkerView,
)
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.wire.traffic_models import TrafficView

Handler = Callable[[Call], Awaitable[web.StreamResponse]]
WorkerChange = Callable[[str, str, str], Awaitable[WorkerView]]
"""Takes actor, worker id and reason."""


@answers.gives(answers.Gives(GrantView, 201))
async def create_grant(call: Call) -> web.StreamResponse:
    grant = await call.service.create_grant(call.identity.id, call.read(GrantRequest))
    return answers.model(grant, status=201)


@answers.gives(GrantList)
async def list_grants(call: Call) -> web.StreamResponse:
    """A page of the grants, the newest first."""
    limit = call.number("limit", default=MAX_ROWS, least=1, most=MAX_ROWS)
    found = await call.service.grants(limit + 1, call.cursor(ListOf.GRANTS))
    page = cut(ListOf.GRANTS, found, lambda one: one.grant_id, limit)
    return answers.model(GrantList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(ApprovalRuleList)
async def list_approval_rules(call: Call) -> web.StreamResponse:
    return answers.model(ApprovalRuleList(items=call.service.approval_rules()))


@answers.gives(answers.NOTHING)
async def withdraw_grant(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    await call.service.withdraw_grant(call.identity.id, call.part("grant_id"), reason)
    return answers.nothing()


@answers.gives(WorkerList)
async def list_workers(call: Call) -> web.StreamResponse:
    """A page of the workers that fit what was asked for, the newest id first."""
    limit = call.number("limit", default=MAX_ROWS, least=1, most=MAX_ROWS)
    wanted = WorkerFilter(
        state=call.choice("state", STATES),
        eligibility=call.choice("eligibility", ELIGIBILITIES),
        attestor=call.choice("attestor", ATTESTORS),
        capability=call.name("capability"),
        waits=call.flag("waits"),
        labels=call.labels("label"),
        demanded=call.flag("demanded"),
    )
    found = await call.service.workers_page(wanted, limit + 1, call.cursor(ListOf.WORKERS))
    page = cut(ListOf.WORKERS, found, lambda one: one.worker_id, limit)
    return answers.model(WorkerList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(WorkerView)
async def show_worker(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.worker(call.part("worker_id")))


def worker_change(choose: Callable[[FleetService], WorkerChange]) -> Handler:
    """The handler of a change to one worker that takes only a reason."""

    @answers.gives(WorkerView)
    async def handler(call: Call) -> web.StreamResponse:
        reason = call.read(ReasonRequest).reason
        change = choose(call.service)
        return answers.model(await change(call.identity.id, call.part("worker_id"), reason))

    return handler


@answers.gives(WorkerView)
async def label(call: Call) -> web.StreamResponse:
    """Give a worker labels, and take some; the same again changes nothing."""
    asked, worker_id = call.read(LabelRequest), call.part("worker_id")
    return answers.model(await call.service.label(call.identity.id, worker_id, asked))


@answers.gives(WorkerView)
async def reattest(call: Call) -> web.StreamResponse:
    asked, worker_id = call.read(ReattestRequest), call.part("worker_id")
    return answers.model(await call.service.reattest(call.identity.id, worker_id, asked))


@answers.gives(WorkerView)
async def drain(call: Call) -> web.StreamResponse:
    request = call.read(DrainRequest)
    changed = await call.service.drain(
        call.identity.id, call.part("worker_id"), request.reason, request.deadline_ms
    )
    return answers.model(changed)


@answers.gives(TrafficView)
async def show_traffic(call: Call) -> web.StreamResponse:
    return answers.model(call.service.traffic())


@answers.gives(LeaseList)
async def list_leases(call: Call) -> web.StreamResponse:
    """A page of the leases that live, have ended or both, the newest first."""
    limit = call.number("limit", default=DEFAULT_ROWS, least=1, most=MAX_ROWS)
    before = call.cursor(ListOf.LEASES)
    before_fence = None if before is None else int(before)
    those = call.one_of("state", LeasesThat, LeasesThat.LIVE)
    found = await call.service.leases(limit + 1, before_fence, those)
    page = cut(ListOf.LEASES, found, lambda one: str(one.fence), limit)
    return answers.model(LeaseList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(LeaseState)
async def revoke_lease(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    lease_id = call.part("lease_id")
    return answers.model(await call.service.revoke_lease(call.identity.id, lease_id, reason))


@answers.gives(FreezeView)
async def show_freeze(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.frozen())


@answers.gives(FreezeView)
async def freeze(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.freeze(call.identity.id, call.read(FreezeRequest)))


@answers.gives(FreezeView)
async def unfreeze(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.unfreeze(call.identity.id, call.read(UnfreezeRequest)))


@answers.gives(ViolationList)
async def list_violations(call: Call) -> web.StreamResponse:
    limit = call.number("limit", default=DEFAULT_ROWS, least=1, most=MAX_ROWS)
    before = call.cursor(ListOf.VIOLATIONS)
    found = await call.service.violations(call.optional_id("worker_id"), limit + 1, before)
    page = cut(ListOf.VIOLATIONS, found, lambda one: one.evidence_sha256, limit)
    return answers.model(ViolationList(items=page.items, next_cursor=page.next_cursor))
