"""A rotation that an operator demands: when the old certificates end, and what counts as done."""

import asyncio
from pathlib import Path

import pytest

from palyra_fleet.identity.device_records import DeviceRecord, IdentityEventReason
from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.identity.messages import PairedDevice
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused
from palyra_fleet.wire.certificate_models import Standing
from tests.fakes.identity_world import QUIET, IdentityWorld, identity_world
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice

MINUTE = 60_000
LONG_OVERLAP = IdentitySettings(overlap_ms=10 * MINUTE, reap_every_ms=QUIET)


async def pair(world: IdentityWorld, device: PairingDevice) -> str:
    return (await world.pair(device)).mtls_client_certificate_pem


async def renew(world: IdentityWorld, pem: str, key: PairingDevice) -> str:
    """The next certificate for this key, not used yet."""
    caller = await world.admit(pem)
    assert isinstance(caller, PairedDevice), caller
    return (await world.identity.rotate(caller, key.csr())).certificate_pem


async def demand(
    world: IdentityWorld, device: PairingDevice, within_ms: int = MINUTE
) -> DeviceRecord:
    return await world.identity.demand_rotation(device.device_id, within_ms, "leaked", "anna")


async def reason(world: IdentityWorld, pem: str) -> NodeReason | None:
    found = await world.admit(pem)
    return found.reason if isinstance(found, NodeRefusal) else None


async def happened(world: IdentityWorld, wanted: IdentityEventReason) -> list[dict[str, object]]:
    events = await world.identity.store.events(0, 1000)
    return [dict(one.detail) for one in events if one.reason == wanted]


async def test_the_old_certificate_ends_with_the_first_use_of_the_new_one(tmp_path: Path) -> None:
    device = PairingDevice(ulid(1))
    async with identity_world(tmp_path / "state", identity=LONG_OVERLAP) as world:
        old = await pair(world, device)
        asked = await demand(world, device)
        assert asked.rotation is not None
        assert asked.rotation.deadline_unix_ms == world.clock() + MINUTE
        caller = await world.admit(old)
        assert isinstance(caller, PairedDevice)
        assert caller.rotate_from_unix_ms <= world.clock()
        assert caller.cert_expires_at_unix_ms == asked.rotation.deadline_unix_ms
        new = await renew(world, old, PairingDevice(device.device_id))
        assert await reason(world, old) is None
        assert await reason(world, new) is None
        assert await reason(world, old) is NodeReason.GATE_REVOKED
        found = world.identity.device(device.device_id)
        assert found is not None and found.rotation is None
        world.clock.forward(2 * MINUTE)
        await world.identity.settle()
        assert await reason(world, new) is None
        assert await happened(world, IdentityEventReason.ROTATION_MISSED) == []


async def test_who_does_not_renew_is_refused_from_the_deadline_on(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    old = await pair(world, device)
    fingerprint = world.leaf(old).fingerprint
    await demand(world, device)
    world.clock.forward(MINUTE - 1)
    assert await reason(world, old) is None
    world.clock.forward(1)
    # nobody has written so yet
    assert isinstance(world.identity.check(fingerprint, world.clock()), NodeRefusal)
    await world.identity.settle()
    await asyncio.sleep(0)
    assert [notice.fingerprints for notice in world.notices] == [{fingerprint}]
    assert not world.notices[0].device_gone
    world.clock.forward(-MINUTE)
    assert await reason(world, old) is NodeReason.GATE_REVOKED
    found = world.identity.device(device.device_id)
    assert found is not None and found.rotation is None and not found.revoked
    assert await happened(world, IdentityEventReason.ROTATION_MISSED) == [
        {"device_id": device.device_id}
    ]
    with pytest.raises(NodeRefused) as refused:
        await demand(world, device)
    assert refused.value.refusal.reason is NodeReason.NO_CERTIFICATE
    device.tls = PairingDevice(device.device_id).tls
    again = (await world.pair(device)).mtls_client_certificate_pem
    assert await reason(world, again) is None


async def test_what_was_asked_for_in_time_is_good_after_the_deadline(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    old = await pair(world, device)
    await demand(world, device)
    new = await renew(world, old, PairingDevice(device.device_id))
    world.clock.forward(MINUTE)
    assert await reason(world, old) is NodeReason.GATE_REVOKED
    assert await reason(world, new) is None


async def test_a_certificate_that_was_issued_before_ends_too(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    old = await pair(world, device)
    waiting = await renew(world, old, PairingDevice(device.device_id))
    await demand(world, device)
    assert await reason(world, waiting) is None
    found = world.identity.device(device.device_id)
    assert found is not None and found.rotation is not None, "it was issued before the demand"
    world.clock.forward(MINUTE)
    assert await reason(world, waiting) is NodeReason.GATE_REVOKED


async def test_the_key_that_was_to_go_does_not_come_back(world: IdentityWorld) -> None:
    device, other = PairingDevice(ulid(1)), PairingDevice(ulid(1))
    old = await pair(world, device)
    await demand(world, device)
    with pytest.raises(NodeRefused) as refused:
        await renew(world, old, device)
    assert refused.value.refusal.reason is NodeReason.KEY_REUSED
    new = await renew(world, old, other)
    assert await reason(world, new) is None
    with pytest.raises(NodeRefused) as refused:
        await renew(world, new, device)
    assert refused.value.refusal.reason is NodeReason.KEY_REUSED
    assert await reason(world, await renew(world, new, other)) is None


@pytest.mark.parametrize("in_time", [True, False])
async def test_the_key_that_was_to_go_does_not_come_back_by_pairing_again(
    world: IdentityWorld, in_time: bool
) -> None:
    device = PairingDevice(ulid(1))
    old = await pair(world, device)
    await demand(world, device)
    if not in_time:
        world.clock.forward(MINUTE)
        await world.identity.settle()
    answered = await world.pair(device)
    assert (answered.paired, answered.mtls_client_certificate_pem) == (False, "")
    assert "another key" in answered.reason
    assert (await reason(world, old) is None) is in_time, "nothing has changed"
    await world.identity.remove_device(device.device_id, "lost", "anna")
    assert await reason(world, await pair(world, device)) is None, "that was forgotten"


async def test_a_deadline_is_only_ever_brought_forward(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    old = await pair(world, device)
    first = await demand(world, device, 5 * MINUTE)
    assert await demand(world, device, 9 * MINUTE) == first
    assert len(await happened(world, IdentityEventReason.ROTATION_DEMANDED)) == 1
    sooner = await demand(world, device, MINUTE)
    assert sooner.rotation is not None
    assert sooner.rotation.deadline_unix_ms == world.clock() + MINUTE
    world.clock.forward(MINUTE)
    assert await reason(world, old) is NodeReason.GATE_REVOKED


async def test_a_later_demand_is_about_what_came_since(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    old = await pair(world, device)
    await demand(world, device, 5 * MINUTE)
    new = await renew(world, old, PairingDevice(device.device_id))
    await demand(world, device, 9 * MINUTE)
    assert await reason(world, new) is None
    assert await reason(world, old) is NodeReason.GATE_REVOKED
    world.clock.forward(9 * MINUTE)
    assert await reason(world, new) is NodeReason.GATE_REVOKED


async def test_nobody_is_asked_who_is_not_there(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    with pytest.raises(NodeRefused) as refused:
        await demand(world, device)
    assert refused.value.refusal.reason is NodeReason.DEVICE_UNKNOWN
    await pair(world, device)
    await demand(world, device)
    await world.identity.revoke_device(device.device_id, "gone", "anna")
    found = world.identity.device(device.device_id)
    assert found is not None and found.rotation is None
    with pytest.raises(NodeRefused) as refused:
        await demand(world, device)
    assert refused.value.refusal.reason is NodeReason.DEVICE_REVOKED


async def test_a_demand_outlasts_a_restart(tmp_path: Path) -> None:
    device = PairingDevice(ulid(1))
    async with identity_world(tmp_path / "state") as world:
        old = await pair(world, device)
        asked = await demand(world, device)
        clock, store = world.clock, world.store
    async with identity_world(tmp_path / "state", clock=clock, store=store) as again:
        assert again.identity.device(device.device_id) == asked
        with pytest.raises(NodeRefused):
            await renew(again, old, device)
        clock.forward(MINUTE)
        assert await reason(again, old) is NodeReason.GATE_REVOKED


async def test_certificates_are_listed_as_the_gate_sees_them(world: IdentityWorld) -> None:
    device = PairingDevice(ulid(1))
    old = await pair(world, device)
    new = await renew(world, old, PairingDevice(device.device_id))
    names = {world.leaf(old).fingerprint: "old", world.leaf(new).fingerprint: "new"}

    def standings() -> dict[str, Standing]:
        every = world.identity.certificates()
        return {names[c.fingerprint]: c.standing for c in every if c.fingerprint in names}

    assert standings() == {"old": Standing.VALID, "new": Standing.PENDING}
    assert await reason(world, new) is None
    assert standings() == {"old": Standing.SUPERSEDED, "new": Standing.VALID}
    world.clock.forward(30_000)
    assert standings() == {"old": Standing.REVOKED, "new": Standing.VALID}
    world.clock.forward(24 * 60 * MINUTE)
    assert standings() == {"old": Standing.REVOKED, "new": Standing.EXPIRED}


async def test_an_authority_that_is_changed_is_listed_until_nobody_needs_it(
    world: IdentityWorld,
) -> None:
    await pair(world, PairingDevice(ulid(1)))
    first = world.identity.authority.authority_id
    second = await world.identity.rotate_authority("it is time", "anna")

    def standings() -> dict[str, Standing]:
        every = world.identity.certificates()
        return {c.authority_id: c.standing for c in every if c.kind == "authority"}

    assert standings() == {first: Standing.SUPERSEDED, second: Standing.VALID}
    await world.identity.remove_device(ulid(1), "gone", "anna")
    await world.identity.tidy()
    assert standings() == {first: Standing.RETIRED, second: Standing.VALID}
