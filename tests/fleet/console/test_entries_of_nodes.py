"""What operators do about machines is in the fleet's log, too, and the answer says where."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from palyra_fleet.api.answers import SEQ_HEADER
from palyra_fleet.api.changes import entry_of
from palyra_fleet.api.routes import ROUTES
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.wire.principal_models import Role
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice
from tests.fakes.raw_http import RawAnswer, ask
from tests.fakes.served_fleet import TOKENS, ServedFleet, served_fleet
from tests.fleet.console.test_gate import sign_in

OF_NODES = ("/v1/pairing", "/v1/devices", "/v1/authorities", "/v1/nodes", "/v1/capability")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    async with node_world(tmp_path / "fleet") as fresh:
        yield fresh


@pytest.fixture
async def fleet(world: NodeWorld) -> AsyncIterator[ServedFleet]:
    async with served_fleet(nodes=NodeOperations(world.service)) as served:
        yield served


async def change(fleet: ServedFleet, path: str, body: dict[str, object]) -> RawAnswer:
    headers = {
        "Authorization": f"Bearer {TOKENS[Role.ADMIN]}",
        "Content-Type": "application/json",
        "Idempotency-Key": "k" * 20,
    }
    return await ask(fleet.admin_url, "POST", path, json.dumps(body).encode(), headers)


async def test_a_code_that_was_minted_is_an_entry_without_the_code(fleet: ServedFleet) -> None:
    first = await change(fleet, "/v1/pairing/codes", {})
    again = await change(fleet, "/v1/pairing/codes", {})
    assert (first.status, first.json["code"]) == (201, again.json["code"])
    (entry,) = fleet.service.log
    assert (entry.reason, entry.actor) == ("node.pairing_code_minted", f"{Role.ADMIN}-1")
    assert first.json["code"] not in entry.model_dump_json()
    assert first.headers[SEQ_HEADER.lower()] == again.headers[SEQ_HEADER.lower()] == "1"


async def test_who_let_a_device_in_and_why_is_an_entry(
    world: NodeWorld, fleet: ServedFleet
) -> None:
    asked = await world.knock(PairingDevice(ulid(1)))
    path = f"/v1/pairing/requests/{asked.approval_id}:approve"
    answer = await change(fleet, path, {"reason": "compared"})
    assert answer.status == 200, answer
    (entry,) = fleet.service.log
    assert (entry.reason, entry.detail["why"]) == ("node.pairing_approved", "compared")


async def test_what_was_refused_is_no_entry(fleet: ServedFleet) -> None:
    answer = await change(fleet, f"/v1/devices/{ulid(9)}:revoke", {"reason": "lost"})
    assert answer.status == 404, answer
    assert fleet.service.log == []


async def test_the_consoles_buttons_make_the_same_entry(fleet: ServedFleet) -> None:
    browser = await sign_in(fleet, TOKENS[Role.ADMIN])
    row = next(row for row in CONSOLE_ROUTES if row.path == "/v1/pairing/requests/code")
    answer = await browser.send(row)
    (entry,) = fleet.service.log
    assert entry.reason == "node.pairing_code_minted"
    assert answer.headers[SEQ_HEADER.lower()] == "1"


def test_every_change_about_machines_has_an_entry() -> None:
    for row in (*ROUTES, *CONSOLE_ROUTES):
        if row.changes and row.path.startswith(OF_NODES):
            assert entry_of(row.handler) is not None, row.path
