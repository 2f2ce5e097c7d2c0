"""Lists about devices and nodes, over HTTP: pages in the API, in the twins and in the console, and
the stream that says when they are out of date."""

import html
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.console import pages
from palyra_fleet.console.gate import COOKIE
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.nodes.records import CapabilityState
from palyra_fleet.wire.principal_models import Role
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice
from tests.fakes.raw_http import ask
from tests.fakes.served_fleet import TOKENS, ServedFleet, served_fleet
from tests.fleet.console.test_gate import Browser, sign_in
from tests.fleet.console.test_stream import listening
from tests.fleet.nodes.test_operations import WAITS, asked_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    async with node_world(tmp_path / "fleet") as fresh:
        yield fresh


@pytest.fixture
async def fleet(world: NodeWorld) -> AsyncIterator[ServedFleet]:
    async with served_fleet(nodes=NodeOperations(world.service)) as served:
        yield served


async def listed(fleet: ServedFleet, path: str) -> Any:
    """A page of a list of the admin API."""
    headers = {"Authorization": f"Bearer {TOKENS[Role.VIEWER]}"}
    answer = await ask(fleet.admin_url, "GET", path, b"", headers)
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def page(browser: Browser, path: str) -> str:
    """The text of a page of the console, or of a twin."""
    cookie = {"Cookie": f"{COOKIE}={browser.cookie}"}
    answer = await ask(browser.fleet.admin_url, "GET", f"/console{path}", b"", cookie)
    assert answer.status == 200, answer
    return answer.body.decode()


def next_of(text: str, parameter: str) -> str:
    """Where the link to the older items of one list leads."""
    (found,) = re.findall(rf'rel="next" href="/console([^"]*[?&]{parameter}=[^"]*)"', text)
    return html.unescape(found)


@pytest.mark.parametrize(
    ("path", "key"),
    [("/v1/pairing/requests", "approval_id"), ("/v1/capability-requests", "request_id")],
)
async def test_the_api_walks_the_whole_list(
    world: NodeWorld, fleet: ServedFleet, path: str, key: str
) -> None:
    for number in (1, 2, 3):
        await world.knock(PairingDevice(ulid(number)))
        world.state.note_request(asked_of(number, CapabilityState.SUCCEEDED))
    first = await listed(fleet, f"{path}?limit=2")
    rest = await listed(fleet, f"{path}?limit=2&cursor={first['next_cursor']}")
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    walked = [one[key] for one in (*first["items"], *rest["items"])]
    assert walked == sorted(set(walked), reverse=True)
    async with fleet.as_operator() as operator:
        found = (
            await operator.pairing_requests()
            if key == "approval_id"
            else await operator.capability_requests()
        )
        assert [getattr(one, key) for one in found] == walked


async def test_a_cursor_of_one_list_begins_no_other(world: NodeWorld, fleet: ServedFleet) -> None:
    for number in (1, 2):
        world.state.note_request(asked_of(number, CapabilityState.SUCCEEDED))
    cursor = (await listed(fleet, "/v1/capability-requests?limit=1"))["next_cursor"]
    headers = {"Authorization": f"Bearer {TOKENS[Role.VIEWER]}"}
    other = f"/v1/pairing/requests?cursor={cursor}"
    answer = await ask(fleet.admin_url, "GET", other, b"", headers)
    assert (answer.status, answer.reason) == (400, "api.query_invalid")


async def test_the_twins_keep_their_shape_page_by_page(
    world: NodeWorld, fleet: ServedFleet
) -> None:
    waiting = [(await world.knock(PairingDevice(ulid(number)))).device_id for number in (1, 2)]
    await world.pair(PairingDevice(ulid(3)))
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    first = json.loads(await page(browser, "/v1/nodes/pending?limit=1"))
    assert first["page"] == {
        "limit": 1,
        "returned": 1,
        "next_cursor": first["page"]["next_cursor"],
        "has_more": True,
    }
    cursor = first["page"]["next_cursor"]
    rest = json.loads(await page(browser, f"/v1/nodes/pending?limit=1&cursor={cursor}"))
    assert rest["page"]["has_more"] is False
    assert {one["device_id"] for one in (*first["pending"], *rest["pending"])} == set(waiting)
    devices = json.loads(await page(browser, "/v1/devices"))
    assert [one["device_id"] for one in devices["devices"]] == [ulid(3)]


async def test_what_waits_is_on_the_pages_of_approvals_whatever_is_newer(
    world: NodeWorld, fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_WAITING_ON_A_PAGE", 2)
    waiting = [asked_of(number, WAITS) for number in (1, 2, 3)]
    for record in waiting:
        await world.knock(PairingDevice(ulid(record.created_at_unix_ms)))
        world.state.note_request(record)
    for number in (4, 5, 6):
        await world.pair(PairingDevice(ulid(number)))
        world.state.note_request(asked_of(number, CapabilityState.REJECTED))
    browser = await sign_in(fleet, TOKENS[Role.APPROVER])
    first = await page(browser, "/approvals")
    devices = await page(browser, next_of(first, "devices"))
    asked = await page(browser, next_of(first, "asked"))
    shown = [re.findall(r'class="id whole">(\w+)<', text) for text in (first, devices)]
    assert [len(one) for one in shown] == [2, 1]
    assert {*shown[0], *shown[1]} == {ulid(1), ulid(2), ulid(3)}
    decided_by = [re.findall(r"capability-requests/(\w+)/approve", text) for text in (first, asked)]
    one, two, three = (record.request_id for record in waiting)
    assert decided_by == [[three, two], [one]]
    assert "<b>6</b> waiting for approval" in await page(browser, "")


async def test_what_nodes_were_asked_has_pages(
    world: NodeWorld, fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_ASKED_ON_A_PAGE", 2)
    for number in (1, 2, 3):
        world.state.note_request(asked_of(number, CapabilityState.SUCCEEDED))
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    first = await page(browser, "/nodes")
    older = await page(browser, next_of(first, "asked"))
    assert (first.count("shell.run"), older.count("shell.run")) == (2, 1)
    assert "Newest" in older and "Older" not in older


async def test_the_stream_tells_of_devices_and_nodes(world: NodeWorld, fleet: ServedFleet) -> None:
    async with listening(await sign_in(fleet, TOKENS[Role.VIEWER])) as ear:
        await ear.hears("event: here")
        await world.knock(PairingDevice(ulid(1)))
        await ear.hears("event: entry\ndata: {}")
        world.state.note_request(asked_of(1, WAITS))
        await ear.hears("event: entry\ndata: {}")
