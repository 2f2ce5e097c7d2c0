"""The pages: what each shows, gathered from the fleet. Nothing here changes anything."""

from collections import Counter
from typing import Final

from aiohttp import web

from palyra_fleet.console import charts, traffic
from palyra_fleet.console.gate import PREFIX, ConsoleCall
from palyra_fleet.console.policy_port import PolicyAnswer
from palyra_fleet.console.rendering import render
from palyra_fleet.ledger.facts import WorkerLifecycleState
from palyra_fleet.wire.models import EventView, ViolationView, WorkerView

HOUR_MS: Final = 3_600_000
_ON_OVERVIEW: Final = 12
_ON_A_PAGE: Final = 200
_STATES: Final = tuple(state.value for state in WorkerLifecycleState)


async def login(call: ConsoleCall) -> web.StreamResponse:
    """`next` is where to go afterwards; only our own pages are."""
    wanted = call.query.get("next", "")
    ours = wanted == PREFIX or wanted.startswith((f"{PREFIX}/", f"{PREFIX}?"))
    return render(call, "login.html", title="Sign in", next=wanted if ours else PREFIX)


async def overview(call: ConsoleCall) -> web.StreamResponse:
    service, now = call.desk.service, call.desk.clock()
    workers = await service.workers()
    violations = await service.violations(None, 1000)
    counts = _count_states(workers)
    return render(
        call,
        "overview.html",
        title="Overview",
        counts=counts,
        states=charts.in_parts(counts),
        leases=len(await service.leases(1000)),
        per_hour=charts.over_time((one.payload.at_unix_ms for one in violations), now, HOUR_MS, 24),
        traffic=traffic.picture(service.traffic(), now),
        latency=_latency(violations),
        quarantined=[one for one in workers if one.state == "quarantined"][:_ON_OVERVIEW],
        events=await service.recent_events(None, _ON_OVERVIEW),
        checks=service.health(),
        alarms=service.alarms(),
        waiting=_waiting(call),
        first_run=not workers and not violations,
    )


async def workers(call: ConsoleCall) -> web.StreamResponse:
    found = await call.desk.service.workers()
    state = call.query.get("state", "")
    shown = [one for one in found if state in {"", one.state}]
    shown.sort(key=lambda one: (_STATES.index(one.state), one.worker_id))
    return render(
        call,
        "workers.html",
        title="Workers",
        workers=shown[:_ON_A_PAGE],
        left_out=max(0, len(shown) - _ON_A_PAGE),
        counts=_count_states(found),
        chosen=state,
    )


async def worker(call: ConsoleCall) -> web.StreamResponse:
    """One worker in one screen: what it is and tried, what happened to it, what can be done."""
    service, worker_id = call.desk.service, call.part("worker_id")
    found = await service.worker(worker_id)
    evidence = await service.violations(worker_id, 100)
    return render(
        call,
        "worker.html",
        title=f"Worker {worker_id}",
        worker=found,
        evidence=evidence,
        cause=_cause(found, evidence),
        events=await service.recent_events(worker_id, 100),
    )


async def violations(call: ConsoleCall) -> web.StreamResponse:
    found = await call.desk.service.violations(None, _ON_A_PAGE)
    return render(call, "violations.html", title="Violations", violations=found)


async def approvals(call: ConsoleCall) -> web.StreamResponse:
    service, operations = call.desk.service, call.desk.operations
    asked = () if operations is None else operations.capability_requests(_ON_A_PAGE)
    return render(
        call,
        "approvals.html",
        title="Approvals",
        pairing=() if operations is None else operations.pairing_requests(_ON_A_PAGE),
        asked=[one for one in asked if one.input is not None],
        grants=(await service.grants())[:_ON_A_PAGE],
    )


async def nodes(call: ConsoleCall) -> web.StreamResponse:
    operations = call.desk.operations
    return render(
        call,
        "nodes.html",
        title="Nodes",
        nodes=() if operations is None else operations.nodes(_ON_A_PAGE),
        asked=() if operations is None else operations.capability_requests(20),
    )


async def policies(call: ConsoleCall) -> web.StreamResponse:
    """The policy in force, what changed last, and how a request would be judged."""
    port = call.desk.policies
    policy = None if port is None else port.in_force()
    view = call.desk.service.traffic()
    return render(
        call,
        "policies.html",
        title="Policies",
        known=port is not None,
        policy=policy,
        verdicts=None if policy is None else traffic.of_policy(view, policy.digest),
        proxies=view.proxies,
        asked=_asked(call),
        answer=_answer(call),
    )


async def audit(call: ConsoleCall) -> web.StreamResponse:
    """The event log, newest first; searched by the words that stand in an entry."""
    wanted = call.query.get("q", "").strip()
    found = await call.desk.service.recent_events(None, 1000)
    shown = [event for event in found if _speaks_of(event, wanted)]
    return render(
        call,
        "audit.html",
        title="Audit",
        events=shown[:_ON_A_PAGE],
        searched=len(found),
        wanted=wanted,
    )


def _asked(call: ConsoleCall) -> dict[str, str]:
    """What the explain box holds: as it was sent, cut to what a request may be."""
    given = call.query
    return {
        "profile": given.get("profile", "")[:64],
        "method": given.get("method", "GET")[:16],
        "url": given.get("url", "").strip()[:2000],
    }


def _answer(call: ConsoleCall) -> PolicyAnswer | None:
    asked, port = _asked(call), call.desk.policies
    if port is None or not asked["url"]:
        return None
    return port.explain(asked["profile"], asked["method"], asked["url"])


def _count_states(found: tuple[WorkerView, ...]) -> dict[str, int]:
    counted = Counter(one.state for one in found)
    return {state: counted[state] for state in _STATES}


def _waiting(call: ConsoleCall) -> int:
    """How many devices wait for somebody's word."""
    if call.desk.operations is None:
        return 0
    found = call.desk.operations.pairing_requests(1000)
    return sum(one.state == "pending_approval" for one in found)


def _latency(found: tuple[ViolationView, ...]) -> list[int]:
    """How long the evidence of the last quarantines took to arrive, sorted; ms."""
    quarantined = [one for one in found if one.outcome == "quarantined"][:50]
    return sorted(max(0, one.received_at_unix_ms - one.payload.at_unix_ms) for one in quarantined)


def _cause(found: WorkerView, evidence: tuple[ViolationView, ...]) -> ViolationView | None:
    """The evidence that quarantined the worker, if it was evidence."""
    digest = found.quarantine_evidence_sha256
    return next((one for one in evidence if one.evidence_sha256 == digest), None)


def _speaks_of(event: EventView, wanted: str) -> bool:
    where = (event.reason, event.actor, event.worker_id, event.lease_id, *event.detail.values())
    return not wanted or any(wanted.lower() in str(value).lower() for value in where)
