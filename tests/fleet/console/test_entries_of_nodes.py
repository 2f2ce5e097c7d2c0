"""What operators do about machines is in the fleet's log, too, and the answer says where."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.api import owed_entries
from palyra_fleet.api.answers import SEQ_HEADER
from palyra_fleet.api.changes import entry_of
from palyra_fleet.api.routes import ROUTES
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.principal_models import Role
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice
from tests.fakes.raw_http import RawAnswer, ask
from tests.fakes.served_fleet import TOKENS, ServedFleet, served_fleet
from tests.fakes.until import until
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


async def change(
    fleet: ServedFleet, path: str, body: dict[str, object], key: str = "k" * 20
) -> RawAnswer:
    headers = {
        "Authorization": f"Bearer {TOKENS[Role.ADMIN]}",
        "Content-Type": "application/json",
        "Idempotency-Key": key,
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


def away(fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on the log cannot be written; the way back."""
    writes = fleet.service.record_event

    async def fails(*_: object) -> None:
        raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, "the store is away")

    monkeypatch.setattr(fleet.service, "record_event", fails)
    return lambda: monkeypatch.setattr(fleet.service, "record_event", writes)


async def test_a_change_whose_entry_failed_is_not_made_again_and_its_entry_is_written(
    world: NodeWorld, fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = away(fleet, monkeypatch)
    minted = spied(world.service.pairing, "mint_code", monkeypatch)
    for key in ("k" * 20, "k" * 20, "m" * 20):  # nothing more is done while an entry is owed
        failed = await change(fleet, "/v1/pairing/codes", {}, key)
        assert (failed.status, failed.reason) == (503, "fleet.store_unavailable")
    back()
    again = await change(fleet, "/v1/pairing/codes", {}, "n" * 20)
    assert (again.status, len(minted)) == (201, 1)
    (entry,) = fleet.service.log
    assert (entry.reason, entry.actor) == ("node.pairing_code_minted", f"{Role.ADMIN}-1")
    assert again.headers[SEQ_HEADER.lower()] == "1"
    another = await change(fleet, "/v1/pairing/codes", {}, "o" * 20)
    assert (another.status, len(minted), len(fleet.service.log)) == (201, 2, 2)
    assert another.json["code"] != again.json["code"]


async def test_an_owed_entry_is_written_before_anything_else_is_done(
    world: NodeWorld, fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await world.knock(PairingDevice(ulid(1)))
    back = away(fleet, monkeypatch)
    approve = f"/v1/pairing/requests/{asked.approval_id}:approve"
    assert (await change(fleet, approve, {"reason": "compared"})).status == 503
    browser = await sign_in(fleet, TOKENS[Role.ADMIN])
    row = next(row for row in CONSOLE_ROUTES if row.path == "/v1/pairing/requests/code")
    assert (await browser.send(row)).status == 503
    back()
    assert (await browser.send(row)).status == 201
    reasons = [entry.reason for entry in fleet.service.log]
    assert reasons == ["node.pairing_approved", "node.pairing_code_minted"]
    assert fleet.service.log[0].detail["why"] == "compared"
    approved = await change(fleet, approve, {"reason": "compared"}, "l" * 20)
    assert (approved.status, approved.json["state"]) == (200, "approved")
    assert approved.headers[SEQ_HEADER.lower()] == "1"
    assert len(fleet.service.log) == 2


async def test_an_answer_is_not_kept_for_who_asks_the_same_much_later(
    world: NodeWorld, fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed_entries, "KEPT_S", -1.0)
    back = away(fleet, monkeypatch)
    minted = spied(world.service.pairing, "mint_code", monkeypatch)
    assert (await change(fleet, "/v1/pairing/codes", {}, "k" * 20)).status == 503
    back()
    assert (await change(fleet, "/v1/pairing/codes", {}, "l" * 20)).status == 201
    assert (len(minted), len(fleet.service.log)) == (2, 2)


async def test_who_removes_a_device_that_was_let_in_again_removes_it(
    world: NodeWorld, fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first removal is kept, and would be told of a device that is there."""
    device = PairingDevice(ulid(1))
    await world.pair(device)
    remove, why = f"/v1/devices/{device.device_id}:remove", {"reason": "lost"}
    back = away(fleet, monkeypatch)
    assert (await change(fleet, remove, why, "k" * 20)).status == 503
    back()
    asked = await world.knock(PairingDevice(device.device_id))
    approve = f"/v1/pairing/requests/{asked.approval_id}:approve"
    assert (await change(fleet, approve, {"reason": "found"}, "l" * 20)).status == 200
    removed = spied(world.identity, "remove_device", monkeypatch)
    await change(fleet, remove, why, "m" * 20)
    assert len(removed) == 1


async def test_an_answer_is_forgotten_when_its_time_is_over_though_nobody_asks(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owed_entries, "KEPT_S", 0.05)
    kept: list[owed_entries.OwedEntries] = []
    keep = owed_entries.OwedEntries._keep

    def noted(owed: owed_entries.OwedEntries, *given: Any) -> None:
        keep(owed, *given)
        kept.append(owed)

    monkeypatch.setattr(owed_entries.OwedEntries, "_keep", noted)
    away(fleet, monkeypatch)
    assert (await change(fleet, "/v1/pairing/codes", {})).status == 503
    await until("it is forgotten", lambda: not kept[0]._kept)


def spied(holder: object, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One item for each time that it is called."""
    does, called = getattr(holder, name), []

    async def noted(*given: object) -> object:
        called.append(name)
        return await does(*given)

    monkeypatch.setattr(holder, name, noted)
    return called


def test_every_change_about_machines_has_an_entry() -> None:
    for row in (*ROUTES, *CONSOLE_ROUTES):
        if row.changes and row.path.startswith(OF_NODES):
            assert entry_of(row.handler) is not None, row.path
