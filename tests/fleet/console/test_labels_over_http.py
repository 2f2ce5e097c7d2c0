"""Labels of a real worker, over the admin API and on the pages of the console."""

import json
from urllib.parse import quote

import pytest

from palyra_fleet.client import FleetProblem
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.labels import MAX_LABELS
from tests.fakes.raw_http import RawAnswer, ask
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fleet.api.test_with_real_fleet import registered
from tests.fleet.cli.test_console_as_described import signed_in
from tests.fleet.console.test_placement_on_pages import words_of

GIVEN = LabelRequest(reason="moved", labels={"zone": "a", "pool.example/disk": ""})


async def listed(fleet: RealFleet, query: str) -> RawAnswer:
    headers = {"Authorization": f"Bearer {fleet.token}"}
    return await ask(fleet.server.admin_url, "GET", f"/v1/workers?{query}", b"", headers)


async def test_an_operator_labels_a_worker_and_finds_it_by_its_labels() -> None:
    async with real_fleet() as fleet, registered(fleet):
        (worker,) = await fleet.operator.workers()
        assert worker.labels == {}
        changed = await fleet.operator.label(worker.worker_id, GIVEN)
        assert changed.labels == GIVEN.labels
        assert await fleet.operator.label(worker.worker_id, GIVEN) == changed
        said = [one for one in await fleet.operator.events() if "labelled" in one.reason]
        assert [(one.actor, one.detail["given"], one.detail["why"]) for one in said] == [
            ("operator", "pool.example/disk=,zone=a", "moved")
        ]
        for labels in (("zone",), ("zone=a", "pool.example/disk="), ()):
            assert await fleet.operator.workers(labels=labels) == (changed,)
        for labels in (("zone=b",), ("zone=a", "rack")):
            assert await fleet.operator.workers(labels=labels) == ()
        taken = LabelRequest(reason="gone", remove=("zone",))
        left = await fleet.operator.label(worker.worker_id, taken)
        assert left.labels == {"pool.example/disk": ""}
        many = LabelRequest(reason="all", labels={f"k{n}": "" for n in range(MAX_LABELS)})
        with pytest.raises(FleetProblem) as refused:
            await fleet.operator.label(worker.worker_id, many)
        assert (refused.value.status, refused.value.reason) == (409, "worker.labels_full")


@pytest.mark.parametrize(
    "query",
    [
        *("label=", "label=-", "label=a%3D%3D", "label=a%2Cb", "label=a&label=b%2Cc"),
        "&".join(f"label=k{number}" for number in range(MAX_LABELS + 1)),
        *("state=busy&state=busy", "label=a&labels=b"),
    ],
)
async def test_what_is_no_label_is_told(query: str) -> None:
    async with real_fleet() as fleet:
        answer = await listed(fleet, query)
        assert (answer.status, answer.reason) == (400, "api.query_invalid")


async def test_labels_are_on_the_pages_and_lead_to_who_has_them() -> None:
    async with real_fleet() as fleet, registered(fleet):
        headers = await signed_in(fleet.server.admin_url, fleet.token)
        (worker,) = await fleet.operator.workers()
        own = f"/workers/{worker.worker_id}"
        assert "Labels none" in await words_of(fleet, headers, own)
        path = f"/console/v1/networked-workers/{worker.worker_id}/label"
        body = GIVEN.model_dump_json().encode()
        sent = {**headers, "Content-Type": "application/json"}
        answer = await ask(fleet.server.admin_url, "POST", path, body, sent)
        assert json.loads(answer.body)["worker"]["labels"] == GIVEN.labels
        assert "Labels pool.example/disk zone=a" in await words_of(fleet, headers, own)
        here = await words_of(fleet, headers, f"/workers?label={quote('zone=a')}&label=zone")
        assert "zone=a" in here and "No workers" not in here
        nobody = await words_of(fleet, headers, f"/workers?label={quote('zone=b')}")
        assert "No workers like this" in nobody
