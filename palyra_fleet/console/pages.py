"""The pages: what each shows, gathered from the fleet. Nothing here changes anything."""

import re
from collections.abc import Iterable
from functools import partial
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from palyra_fleet.api.call import read_choice, read_flag, read_labels, read_name, read_word
from palyra_fleet.api.paging import MAX_ROWS, ListOf, Page, cut, narrowed
from palyra_fleet.console import charts, latency, traffic
from palyra_fleet.console.gate import PREFIX, ConsoleCall
from palyra_fleet.console.policy_pages import judged_today, profiles_known
from palyra_fleet.console.rendering import render
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.ledger.facts import WorkerLifecycleState
from palyra_fleet.ledger.worker_filter import ATTESTORS, ELIGIBILITIES, STATES, WorkerFilter
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.labels import WANTED_PATTERN
from palyra_fleet.wire.lease_models import LeasesThat, LeaseView
from palyra_fleet.wire.models import EventView, ViolationView, WorkerView
from palyra_fleet.wire.node_models import CapabilityRequestView, PairingRequestView

HOUR_MS: Final = 3_600_000
_ON_OVERVIEW: Final = 12
_ON_A_PAGE: Final = 100
_WAITING_ON_A_PAGE: Final = 20
_ASKED_ON_A_PAGE: Final = 20
_NARROWER: Final = ("eligibility", "attestor", "capability", "waits", "demanded", "label")
_OWN_PAGE: Final = re.compile(rf"{PREFIX}(?:/[A-Za-z0-9_-]+)*(?:\?[!-\[\]-~]*)?")
"""How a page of ours is written: names without dots or escapes, so that no browser reads another
path or host in it, and a query of printable signs without the backslash, which browsers turn."""


async def login(call: ConsoleCall) -> web.StreamResponse:
    """`next` is where to go afterwards; only our own pages are."""
    wanted = call.query.get("next", "")
    ours = _OWN_PAGE.fullmatch(wanted) is not None
    return render(call, "login.html", title="Sign in", next=wanted if ours else PREFIX)


async def overview(call: ConsoleCall) -> web.StreamResponse:
    service, now = call.desk.service, call.desk.clock()
    counts = _by_state(call)
    quarantined = WorkerFilter(state=WorkerLifecycleState.QUARANTINED.value)
    violations = await service.violations(None, 1000)
    return render(
        call,
        "overview.html",
        title="Overview",
        counts=counts,
        states=charts.in_parts(counts),
        leases=service.standing().leases,
        per_hour=charts.over_time((one.payload.at_unix_ms for one in violations), now, HOUR_MS, 24),
        traffic=traffic.picture(service.traffic(), now),
        latency=latency.picture(violations),
        quarantined=await service.workers_page(quarantined, _ON_OVERVIEW),
        events=await service.recent_events(None, _ON_OVERVIEW),
        checks=service.health(),
        alarms=service.alarms(),
        waiting=_waiting(call),
        releases=await service.release_requests(),
        frozen=await service.frozen(),
        first_run=not (any(counts.values()) or violations or await _has_run(call)),
    )


async def workers(call: ConsoleCall) -> web.StreamResponse:
    """Those that fit what was asked for, the newest first: that order stays right from page to
    page. What a form leaves empty is not asked for."""
    service, after = call.desk.service, call.cursor(ListOf.WORKERS)
    asked = {name: call.query[name] for name in ("state", *_NARROWER) if call.query.get(name)}
    labels = [one for one in asked.pop("label", "").split(",") if one]
    pairs = [*asked.items(), *(("label", one) for one in labels)]
    wanted = WorkerFilter(
        state=read_word(asked, "state", STATES),
        eligibility=read_word(asked, "eligibility", ELIGIBILITIES),
        attestor=read_word(asked, "attestor", ATTESTORS),
        capability=read_name(asked, "capability"),
        labels=read_labels({"label": ",".join(labels)} if labels else {}, "label"),
        waits=read_flag(asked, "waits"),
        demanded=read_flag(asked, "demanded"),
    )
    found = await service.workers_page(wanted, _ON_A_PAGE + 1, after)
    page = cut(ListOf.WORKERS, found, lambda one: one.worker_id, _ON_A_PAGE)
    shown = [one.worker_id for one in page.items]
    return render(
        call,
        "workers.html",
        title="Workers",
        page=page,
        waits={worker_id for worker_id in shown if service.waits(worker_id)},
        offers={worker_id: service.offer_to(worker_id) for worker_id in shown},
        waiting=service.waiting(),
        counts=_by_state(call),
        asked=asked,
        chosen=wanted.state,
        narrower=[(name, text) for name, text in pairs if name != "state"],
        eligibilities=ELIGIBILITIES,
        attestors=ATTESTORS,
        labels=labels,
        here=f"/console/workers?{urlencode(pairs)}" if pairs else "/console/workers",
        first=after is None,
    )


async def worker(call: ConsoleCall) -> web.StreamResponse:
    """One worker in one screen: what it is and tried, what happened to it, what can be done. Of
    one that is not there: whether it was evicted, and what the log says of it."""
    service, worker_id = call.desk.service, call.part("worker_id")
    try:
        found = await service.worker(worker_id)
    except FleetRefusal as refused:
        if refused.reason is not FleetReason.WORKER_UNKNOWN:
            raise
        return await _not_there(call, worker_id)
    evidence = await service.violations(worker_id, 100)
    return render(
        call,
        "worker.html",
        title=f"Worker {worker_id}",
        worker=found,
        label_pattern=WANTED_PATTERN,
        evidence=evidence,
        today=await judged_today(call, evidence),
        cause=_cause(found, evidence),
        passed=_passed(call, worker_id),
        waits=service.waits(worker_id),
        offer=service.offer_to(worker_id),
        asked=await service.release_request_of(worker_id),
        two_persons=service.two_person_release,
        events=await service.recent_events(worker_id, 100),
    )


async def leases(call: ConsoleCall) -> web.StreamResponse:
    """Those that live, have ended or both, newest first; searched by the words that stand there."""
    service, before = call.desk.service, call.cursor(ListOf.LEASES)
    those = read_choice(call.query, "state", LeasesThat, LeasesThat.LIVE)
    wanted = call.query.get("q", "").strip()
    found = await service.leases(MAX_ROWS + 1, None if before is None else int(before), those)
    fits = partial(_names, wanted=wanted)
    return render(
        call,
        "leases.html",
        title="Leases",
        page=narrowed(ListOf.LEASES, found, lambda one: str(one.fence), fits, _ON_A_PAGE),
        live=service.standing().leases,
        those=those.value,
        every=[one.value for one in LeasesThat],
        wanted=wanted,
        searched=min(len(found), MAX_ROWS),
        passed={one.worker_id: one for one in traffic.by_worker(service.traffic().proxies)},
        first=before is None,
    )


async def violations(call: ConsoleCall) -> web.StreamResponse:
    """What was tried, newest first, and whether the policy in force would refuse it."""
    before = call.cursor(ListOf.VIOLATIONS)
    found = await call.desk.service.violations(None, _ON_A_PAGE + 1, before)
    page = cut(ListOf.VIOLATIONS, found, lambda one: one.evidence_sha256, _ON_A_PAGE)
    return render(
        call,
        "violations.html",
        title="Violations",
        page=page,
        today=await judged_today(call, page.items),
        first=before is None,
    )


async def approvals(call: ConsoleCall) -> web.StreamResponse:
    service, operations = call.desk.service, call.desk.operations
    before = call.cursor(ListOf.GRANTS)
    grants = await service.grants(_ON_A_PAGE + 1, before)
    pairing, asked = call.cursor(ListOf.PAIRING, "devices"), _asked_after(call)
    return render(
        call,
        "approvals.html",
        title="Approvals",
        pairing=_pairing_page(operations, pairing),
        first_pairing=pairing is None,
        asked=_asked_page(operations, _WAITING_ON_A_PAGE, asked, waiting=True),
        first_asked=asked is None,
        page=cut(ListOf.GRANTS, grants, lambda one: one.grant_id, _ON_A_PAGE),
        first=before is None,
        profiles=profiles_known(call),
    )


async def nodes(call: ConsoleCall) -> web.StreamResponse:
    operations, after = call.desk.operations, call.cursor(ListOf.NODES)
    asked = _asked_after(call)
    found = () if operations is None else operations.nodes(_ON_A_PAGE + 1, after)
    device = call.cursor(ListOf.DEVICES, "devices")
    paired = () if operations is None else operations.devices(_ON_A_PAGE + 1, device)
    return render(
        call,
        "nodes.html",
        title="Nodes",
        page=cut(ListOf.NODES, found, lambda one: one.device_id, _ON_A_PAGE),
        first=after is None,
        devices=cut(ListOf.DEVICES, paired, lambda one: one.device_id, _ON_A_PAGE),
        first_device=device is None,
        asked=_asked_page(operations, _ASKED_ON_A_PAGE, asked),
        first_asked=asked is None,
    )


def _asked_after(call: ConsoleCall) -> str | None:
    return call.cursor(ListOf.CAPABILITIES, "asked")


def _pairing_page(operations: NodeOperations | None, after: str | None) -> Page[PairingRequestView]:
    """Devices that wait for somebody's word."""
    if operations is None:
        return Page((), None)
    found = operations.pairing_requests(_WAITING_ON_A_PAGE + 1, after, waiting=True)
    return cut(ListOf.PAIRING, found, lambda one: one.approval_id, _WAITING_ON_A_PAGE)


def _asked_page(
    operations: NodeOperations | None, rows: int, after: str | None, *, waiting: bool = False
) -> Page[CapabilityRequestView]:
    """What nodes were asked to do; `waiting`: only what waits for somebody's word."""
    if operations is None:
        return Page((), None)
    found = operations.capability_requests(rows + 1, after, waiting=waiting)
    return cut(ListOf.CAPABILITIES, found, lambda one: one.request_id, rows)


async def audit(call: ConsoleCall) -> web.StreamResponse:
    """The event log, newest first; searched by the words that stand in an entry."""
    wanted, before = call.query.get("q", "").strip(), call.cursor(ListOf.EVENTS)
    before_seq = None if before is None else int(before)
    found = await call.desk.service.recent_events(None, MAX_ROWS + 1, before_seq)
    fits = partial(_speaks_of, wanted=wanted)
    return render(
        call,
        "audit.html",
        title="Audit",
        page=narrowed(ListOf.EVENTS, found, lambda one: str(one.seq), fits, _ON_A_PAGE),
        searched=min(len(found), MAX_ROWS),
        wanted=wanted,
        first=before is None,
    )


async def _not_there(call: ConsoleCall, worker_id: str) -> web.StreamResponse:
    events = await call.desk.service.recent_events(worker_id, 100)
    return render(
        call,
        "worker_gone.html",
        status=404,
        title=f"Worker {worker_id}",
        worker_id=worker_id,
        evicted=next((one for one in events if one.reason == EventReason.EVICTED), None),
        events=events,
    )


def _passed(call: ConsoleCall, worker_id: str) -> traffic.WorkerTraffic | None:
    """What the worker sent and received, if it is among those that proxies told of."""
    every = traffic.by_worker(call.desk.service.traffic().proxies)
    return next((one for one in every if one.worker_id == worker_id), None)


def _by_state(call: ConsoleCall) -> dict[str, int]:
    """How many workers are in each state, those without any too."""
    counted = call.desk.service.standing().workers
    return {state: counted[state] for state in STATES}


async def _has_run(call: ConsoleCall) -> bool:
    """Whether any run ever had a lease that is still known."""
    return bool(await call.desk.service.leases(1, None, LeasesThat.ALL))


def _waiting(call: ConsoleCall) -> int:
    """How many devices, and things asked of nodes, wait for somebody's word."""
    operations = call.desk.operations
    return 0 if operations is None else operations.waiting()


def _cause(found: WorkerView, evidence: tuple[ViolationView, ...]) -> ViolationView | None:
    """The evidence that quarantined the worker, if it was evidence."""
    digest = found.quarantine_evidence_sha256
    return next((one for one in evidence if one.evidence_sha256 == digest), None)


def _speaks_of(event: EventView, wanted: str) -> bool:
    where = (event.reason, event.actor, event.worker_id, event.lease_id, *event.detail.values())
    return _stands_in(wanted, where)


def _names(lease: LeaseView, wanted: str) -> bool:
    """Whether what is wanted stands in a word of this lease."""
    ids = (lease.lease_id, lease.worker_id, lease.run_id, lease.grant_id)
    return _stands_in(wanted, (*ids, lease.egress_profile, lease.principal, lease.state))


def _stands_in(wanted: str, where: Iterable[object]) -> bool:
    return not wanted or any(wanted.lower() in str(value).lower() for value in where)
