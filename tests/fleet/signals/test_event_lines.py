"""The fleet's events in its log: durable first, then told, under the ids of the event log."""

import json
from collections.abc import Iterator

import pytest

from palyra_fleet.client import WorkerAction
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.store.protocol import StoreFailed
from tests.fakes.fleet_world import FleetWorld, WorkerPen, fleet_world
from tests.fakes.ledger_world import ulid
from tests.fakes.log_lines import json_lines
from tests.fakes.memory_fleet_store import MemoryFleetStore
from tests.fakes.raw_http import ask
from tests.fakes.real_fleet import real_fleet
from tests.fleet.api.test_with_real_fleet import registered

EVENTS = "palyra_fleet.signals.event_lines"
CALLS = "palyra_fleet.api.refusal_log"
QUARANTINED = "worker.quarantined_by_egress"
W1 = ulid(1)

type Lines = list[dict[str, object]]


@pytest.fixture
def events() -> Iterator[Lines]:
    with json_lines(EVENTS) as lines:
        yield lines


@pytest.fixture
def calls() -> Iterator[Lines]:
    with json_lines(CALLS) as lines:
        yield lines


def of_action(lines: Lines, action: str) -> Lines:
    return [line for line in lines if line["event.action"] == action]


async def violated(world: FleetWorld) -> None:
    worker = WorkerPen(W1)
    await world.register(worker)
    lease = await world.lease(worker, "run-1")
    await world.service.accept_violation("proxy-1", world.proxy.violation(lease, world.clock()))


async def test_one_decision_id_leads_from_the_evidence_to_the_record_and_the_log(
    events: Lines,
) -> None:
    async with fleet_world(MemoryFleetStore()) as world:
        await violated(world)
        (kept,) = await world.service.violations(W1, 1)
        view = await world.service.worker(W1)
        (event,) = [e for e in await world.service.events(0, 99) if e.reason == QUARANTINED]
    decision_id = kept.payload.decision_id
    assert view.quarantine_decision_id == event.detail["decision_id"] == decision_id
    (line,) = of_action(events, QUARANTINED)
    assert (line["palyra.decision.id"], line["log.level"]) == (decision_id, "warning")
    assert (line["palyra.worker.id"], line["user.name"]) == (W1, "proxy:proxy-1")


async def test_what_did_not_become_durable_is_not_in_the_log(events: Lines) -> None:
    store = MemoryFleetStore()
    async with fleet_world(store) as world:
        worker = WorkerPen(W1)
        await world.register(worker)
        lease = await world.lease(worker, "run-1")
        violation = world.proxy.violation(lease, world.clock())
        store.fail_next = StoreFailed("full", ambiguous=False)
        with pytest.raises(FleetRefusal):
            await world.service.accept_violation("proxy-1", violation)
        assert of_action(events, QUARANTINED) == []
        await world.service.accept_violation("proxy-1", violation)
    assert len(of_action(events, QUARANTINED)) == 1


async def test_an_operators_call_is_one_id_in_its_answer_the_event_and_the_log(
    events: Lines, calls: Lines
) -> None:
    async with real_fleet() as fleet, registered(fleet):
        (worker,) = await fleet.operator.workers()
        await fleet.operator.act(WorkerAction.QUARANTINE, worker.worker_id, "looked odd")
        (event,) = [e for e in await fleet.operator.events(0, 99) if "by_operator" in e.reason]
        refused = await ask(fleet.server.admin_url, "GET", f"/v1/workers/{W1}")
    (line,) = of_action(events, event.reason)
    assert line["http.request.id"] == event.detail["request_id"]
    assert (line["user.name"], line["event.reason"]) == ("operator", "looked odd")
    (line,) = of_action(calls, "call-refused")
    assert line["http.request.id"] == refused.headers["palyra-request-id"]
    assert (line["event.reason"], line["http.response.status_code"]) == ("api.token_refused", 401)
    assert line["url.path"] == "/v1/workers/{worker_id}"
    assert W1 not in json.dumps(calls)
