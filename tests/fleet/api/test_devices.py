"""Devices and certificates over the admin API: pages, filters, and the demand of a new key."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.client import FleetProblem
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.wire.certificate_models import CertificateKind, CertificateView, Standing
from palyra_fleet.wire.node_models import DeviceState, RotateDeviceRequest
from palyra_fleet.wire.principal_models import Role
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice
from tests.fakes.raw_http import RawAnswer, ask
from tests.fakes.served_fleet import TOKENS, ServedFleet, served_fleet

LEAKED = RotateDeviceRequest(reason="the key may be in other hands")
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    async with node_world(tmp_path / "fleet") as fresh:
        yield fresh


@pytest.fixture
async def fleet(world: NodeWorld) -> AsyncIterator[ServedFleet]:
    async with served_fleet(nodes=NodeOperations(world.service)) as served:
        yield served


async def looked(fleet: ServedFleet, path: str) -> RawAnswer:
    headers = {"Authorization": f"Bearer {TOKENS[Role.VIEWER]}"}
    return await ask(fleet.admin_url, "GET", path, b"", headers)


async def listed(fleet: ServedFleet, path: str) -> Any:
    answer = await looked(fleet, path)
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def test_devices_have_pages_and_filters(world: NodeWorld, fleet: ServedFleet) -> None:
    for number, kind in ((1, "node"), (2, "proxy"), (3, "node"), (4, "node")):
        await world.pair(PairingDevice(ulid(number), kind))
    async with fleet.as_operator() as operator:
        await operator.end_device(ulid(4), "sold", forget=False)
        await operator.rotate_device(ulid(3), LEAKED)
        every = [one.device_id for one in await operator.devices()]
        assert every == [ulid(4), ulid(3), ulid(2), ulid(1)]
        proxies = await operator.devices(kind="proxy")
        assert [one.device_id for one in proxies] == [ulid(2)]
        by_state = {
            state: [one.device_id for one in await operator.devices(state=state)]
            for state in DeviceState
        }
        assert by_state == {
            DeviceState.PAIRED: [ulid(2), ulid(1)],
            DeviceState.ROTATING: [ulid(3)],
            DeviceState.LAPSED: [],
            DeviceState.REVOKED: [ulid(4)],
        }
        world.clock.ahead_ms += 600_000
        await world.identity.settle()
        (lapsed,) = await operator.devices(state=DeviceState.LAPSED)
        assert (lapsed.device_id, lapsed.certificate_expires_at_unix_ms) == (ulid(3), None)
    first = await listed(fleet, "/v1/devices?kind=node&limit=2")
    rest = await listed(fleet, f"/v1/devices?kind=node&limit=2&cursor={first['next_cursor']}")
    walked = [one["device_id"] for one in (*first["items"], *rest["items"])]
    assert walked == [ulid(4), ulid(3), ulid(1)]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    "query", ["state=gone", "kind=worker", "state=", "limit=0", "cursor=x", "colour=red"]
)
async def test_what_no_device_can_be_is_told(fleet: ServedFleet, query: str) -> None:
    answer = await looked(fleet, f"/v1/devices?{query}")
    assert (answer.status, answer.reason) == (400, "api.query_invalid")


async def test_a_demand_is_in_the_answer_and_says_who_and_why(
    world: NodeWorld, fleet: ServedFleet
) -> None:
    await world.pair(PairingDevice(ulid(1)))
    async with fleet.as_operator(TOKENS[Role.OPERATOR]) as operator:
        asked = await operator.rotate_device(ulid(1), LEAKED)
        assert asked == await operator.device(ulid(1))
        assert asked.rotation is not None
        assert (asked.rotation.asked_by, asked.rotation.why) == ("operator-1", LEAKED.reason)
        waits_ms = asked.rotation.due_at_unix_ms - asked.rotation.asked_at_unix_ms
        assert waits_ms == LEAKED.within_ms
        assert asked.certificate_expires_at_unix_ms == asked.rotation.due_at_unix_ms
        again = RotateDeviceRequest(reason="again", within_ms=DAY_MS)
        assert await operator.rotate_device(ulid(1), again) == asked
        for stranger in (ulid(9), ulid(8)):
            with pytest.raises(FleetProblem) as refused:
                await operator.rotate_device(stranger, LEAKED)
            assert (refused.value.status, refused.value.reason) == (404, "identity.device_unknown")


@pytest.mark.parametrize("within_ms", [59_999, DAY_MS + 1, "600000", None])
async def test_a_deadline_is_a_minute_to_a_day_away(fleet: ServedFleet, within_ms: object) -> None:
    body = json.dumps({"reason": "leaked", "within_ms": within_ms}).encode()
    headers = {
        "Authorization": f"Bearer {TOKENS[Role.OPERATOR]}",
        "Content-Type": "application/json",
    }
    target = f"/v1/devices/{ulid(1)}:rotate"
    answer = await ask(fleet.admin_url, "POST", target, body, headers)
    assert (answer.status, answer.reason) == (400, "api.body_invalid")


async def test_every_certificate_is_listed_and_told_apart(
    world: NodeWorld, fleet: ServedFleet
) -> None:
    node = await world.pair(PairingDevice(ulid(1)))
    await world.pair(PairingDevice(ulid(2), "proxy"))
    async with fleet.as_operator() as operator:
        every = await operator.certificates()
        kinds = [one.kind for one in every]
        assert sorted(kinds) == ["authority", "device", "device", "server"]
        assert {one.state for one in every} == {Standing.VALID}
        (mine,) = await operator.certificates(device_id=ulid(1))
        assert mine.fingerprint_sha256 == node.fingerprint
        assert mine.spiffe_id == f"spiffe://palyra.internal/device/{ulid(1)}"
        assert mine.subject == f"O=Palyra,CN=Palyra Device {ulid(1)}"
        assert (mine.client_kind, mine.authority_id) == ("node", world.authority.authority_id)
        assert mine.not_before_unix_ms < mine.issued_at_unix_ms < mine.not_after_unix_ms
        assert mine.ends_at_unix_ms == mine.not_after_unix_ms
        assert await certificates_of_kinds(operator.certificates) == kinds
        assert await operator.certificates(kind="server", device_id=ulid(1)) == ()
        asked = await operator.rotate_device(ulid(1), LEAKED)
        (mine,) = await operator.certificates(device_id=ulid(1))
        assert mine.ends_at_unix_ms == asked.certificate_expires_at_unix_ms
        soon = await operator.certificates(expires_within_ms=LEAKED.within_ms)
        assert [one.device_id for one in soon] == [ulid(1)]
        later = await operator.certificates(expires_within_ms=DAY_MS)
        assert {one.device_id for one in later} == {ulid(1), ulid(2)}
        await operator.end_device(ulid(2), "sold", forget=True)
        (gone,) = await operator.certificates(state=Standing.REVOKED)
        assert (gone.device_id, gone.client_kind) == (ulid(2), None)
        assert gone.ended_reason == "device removed: sold"
        assert gone not in await operator.certificates(expires_within_ms=DAY_MS)


async def certificates_of_kinds(find: Any) -> list[CertificateKind]:
    """All kinds, each asked for by itself, in the order of the whole list."""
    found = [one for kind in CertificateKind for one in await find(kind=kind)]
    found.sort(key=lambda one: (one.issued_at_unix_ms, one.fingerprint_sha256), reverse=True)
    return [one.kind for one in found]


async def test_certificates_have_pages_and_no_key(world: NodeWorld, fleet: ServedFleet) -> None:
    for number in (1, 2, 3):
        await world.pair(PairingDevice(ulid(number)))
    walked: list[CertificateView] = []
    cursor = ""
    while cursor is not None:
        page = await listed(fleet, f"/v1/certificates?limit=2{cursor and f'&cursor={cursor}'}")
        assert "PRIVATE" not in json.dumps(page) and "BEGIN" not in json.dumps(page)
        walked += [CertificateView.model_validate_json(json.dumps(one)) for one in page["items"]]
        cursor = page["next_cursor"]
    async with fleet.as_operator() as operator:
        assert tuple(walked) == await operator.certificates()
    assert len({one.fingerprint_sha256 for one in walked}) == 5


@pytest.mark.parametrize(
    "query", ["state=paired", "kind=node", "expires_within_ms=-1", "device_id=1", "cursor=eDox"]
)
async def test_what_no_certificate_can_be_is_told(fleet: ServedFleet, query: str) -> None:
    answer = await looked(fleet, f"/v1/certificates?{query}")
    assert (answer.status, answer.reason) == (400, "api.query_invalid")
