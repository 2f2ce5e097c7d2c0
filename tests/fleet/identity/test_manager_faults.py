"""IdentityManager when it cannot write, with new authorities and master keys, and its settings."""

import asyncio
from pathlib import Path

import pytest

from palyra_fleet.identity.device_ledger import FORGET_AFTER_MS
from palyra_fleet.identity.manager import IdentityManager, IdentitySettings
from palyra_fleet.identity.messages import (
    IssuedCertificate,
    PairedDevice,
    PairingStatus,
    VerifiedLeaf,
)
from palyra_fleet.identity.records import ClientKind
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.sealing import MasterKey, SealBroken
from tests.fakes.fleet_world import Clock
from tests.fakes.identity_world import (
    MASTER,
    QUIET,
    IdentityWorld,
    MemoryPairingStore,
    identity_world,
)
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice

HOUR = 60 * 60 * 1000
DEVICE, OTHER = PairingDevice(ulid(1)), PairingDevice(ulid(2))
NO_OVERLAP = IdentitySettings(overlap_ms=0, reap_every_ms=QUIET)


async def _reason(world: IdentityWorld, pem: str, claimed: str | None = None) -> NodeReason | None:
    found = await world.admit(pem, claimed)
    return found.reason if isinstance(found, NodeRefusal) else None


async def _rotate(world: IdentityWorld, pem: str) -> IssuedCertificate:
    caller = await world.admit(pem)
    assert isinstance(caller, PairedDevice), caller
    return await world.identity.rotate(caller, PairingDevice(caller.device_id).csr())


def _pem(paired: PairingStatus) -> str:
    return paired.mtls_client_certificate_pem


class _FailingDisk:
    """The real store, whose commits fail on demand."""

    def __init__(self, manager: IdentityManager, ambiguous: bool) -> None:
        self.failing = True
        real = manager.store.commit

        async def commit(*arguments: object, **named: object) -> None:
            if self.failing:
                raise StoreFailed("the disk is full", ambiguous=ambiguous)
            await real(*arguments, **named)  # type: ignore[arg-type]

        manager.store.commit = commit  # type: ignore[method-assign]


async def test_a_revocation_that_cannot_be_written_suspends_the_device_all_the_same(
    world: IdentityWorld,
) -> None:
    pem = _pem(await world.pair(DEVICE))
    disk = _FailingDisk(world.identity, ambiguous=False)
    with pytest.raises(NodeRefused) as refused:
        await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    assert refused.value.refusal.reason is NodeReason.STORE_UNAVAILABLE
    assert await _reason(world, pem) is NodeReason.GATE_REVOKED
    assert len(world.notices) == 1
    disk.failing = False
    await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    assert world.identity.device(DEVICE.device_id) is not None
    assert all(c.revoked for c in world.identity.history(DEVICE.device_id))
    assert await _reason(world, pem) is NodeReason.GATE_REVOKED


async def test_a_first_use_that_cannot_be_written_lets_nobody_in(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    second = (await _rotate(world, first)).certificate_pem
    disk = _FailingDisk(world.identity, ambiguous=False)
    assert await _reason(world, second) is NodeReason.STORE_UNAVAILABLE
    assert await _reason(world, first) is None
    disk.failing = False
    assert await _reason(world, second) is None


async def test_after_a_commit_of_unknown_outcome_nobody_is_admitted(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    other = _pem(await world.pair(OTHER))
    disk = _FailingDisk(world.identity, ambiguous=True)
    with pytest.raises(NodeRefused):
        await _rotate(world, first)
    disk.failing = False
    assert await _reason(world, other) is NodeReason.STORE_UNAVAILABLE
    found = world.identity.check(world.leaf(other).fingerprint, world.clock())
    assert isinstance(found, NodeRefusal)
    with pytest.raises(NodeRefused):
        await world.identity.revoke_device(OTHER.device_id, "x", "anna")


async def test_a_command_is_finished_even_if_its_caller_goes_away(world: IdentityWorld) -> None:
    pem = _pem(await world.pair(DEVICE))
    task = asyncio.ensure_future(  # noqa: TID251 (the test cancels it)
        world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    )
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.identity.settle()  # waits its turn behind the revocation
    assert await _reason(world, pem) is NodeReason.GATE_REVOKED


async def test_an_authority_is_rotated_by_overlap(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    served = world.identity.server_identity()
    assert world.identity.server_identity() is served
    world.clock.forward(HOUR)
    fresh = await world.identity.rotate_authority("test", "anna")
    assert await _reason(world, first) is None
    second = await _rotate(world, first)
    assert second.gateway_ca_certificate_pem.count("BEGIN CERTIFICATE") == 2
    assert await _reason(world, second.certificate_pem) is None
    assert world.identity.server_identity().authority_id != fresh
    await world.identity.tidy()  # the old leaf is still in its overlap
    assert len(world.identity.authority.trusted) == 2
    world.clock.forward(30_000)
    await world.identity.settle()
    await world.identity.tidy()
    assert len(world.identity.authority.trusted) == 1
    assert world.identity.server_identity().authority_id == fresh
    assert await _reason(world, second.certificate_pem) is None
    assert await _reason(world, first) is NodeReason.GATE_NO_CERTIFICATE


async def test_one_change_of_the_authority_at_a_time(world: IdentityWorld) -> None:
    await world.pair(DEVICE)
    old = world.identity.authorities()
    assert [(a.signs_devices, a.signs_servers, a.good_certificates) for a in old] == [
        (True, True, 1)
    ]
    fresh = await world.identity.rotate_authority("test", "anna")
    both = world.identity.authorities()
    assert [(a.signs_devices, a.signs_servers, a.good_certificates) for a in both] == [
        (False, True, 1),
        (True, False, 0),
    ]
    assert both[1].authority_id == fresh
    with pytest.raises(NodeRefused) as refused:
        await world.identity.rotate_authority("again", "anna")
    assert refused.value.refusal.reason is NodeReason.AUTHORITY_OVERLAP
    assert old[0].authority_id in str(refused.value)
    await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    await world.identity.tidy()
    assert [a.authority_id for a in world.identity.authorities()] == [fresh]
    await world.identity.rotate_authority("again", "anna")


async def test_the_servers_certificate_is_renewed_at_two_thirds_of_its_life(
    world: IdentityWorld,
) -> None:
    served = world.identity.server_identity()
    world.clock.forward(7 * 24 * HOUR * 2 // 3 - 1)
    assert world.identity.server_identity() is served
    world.clock.forward(1)
    renewed = world.identity.server_identity()
    assert renewed.expires_at_unix_ms > served.expires_at_unix_ms


async def test_what_ended_long_ago_is_forgotten_and_still_refused(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    leaf = world.leaf(first)
    await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    world.clock.forward(24 * HOUR + FORGET_AFTER_MS)
    await world.identity.tidy()
    assert world.identity.history(DEVICE.device_id) == ()
    refusal = await world.identity.admit(leaf, None)
    assert isinstance(refusal, NodeRefusal)
    assert refusal.reason is NodeReason.GATE_UNKNOWN
    device = world.identity.device(DEVICE.device_id)
    assert device is not None
    assert device.revoked


async def test_another_master_key_does_not_start_and_says_so(tmp_path: Path) -> None:
    async with identity_world(tmp_path / "state"):
        pass
    with pytest.raises(SealBroken, match="another master key"):
        async with identity_world(tmp_path / "state", master=MasterKey.generate()):
            pass
    async with identity_world(tmp_path / "state"):
        pass


async def test_a_new_master_key_seals_everything_anew(tmp_path: Path) -> None:
    clock, store = Clock(), MemoryPairingStore()
    async with identity_world(tmp_path / "state", clock=clock, store=store) as world:
        pem = _pem(await world.pair(DEVICE))
        pepper = world.identity.pairing_pepper
    fresh = MasterKey.of(bytes(range(7, 39)), older=(MASTER,))
    for master in (fresh, fresh.alone):
        async with identity_world(
            tmp_path / "state", master=master, clock=clock, store=store
        ) as world:
            assert world.identity.pairing_pepper == pepper
            assert await _reason(world, pem) is None


async def test_a_paired_proxy_is_known_by_the_key_the_fleet_enrols(world: IdentityWorld) -> None:
    proxy = PairingDevice(ulid(3), "proxy")
    await world.pair(DEVICE)
    found = await world.admit(_pem(await world.pair(proxy)))
    assert isinstance(found, PairedDevice)
    assert found.identity_fingerprint == thumbprint_sha256(proxy.signing_public)
    assert [d.device_id for d in world.identity.devices(ClientKind.PROXY)] == [proxy.device_id]
    assert len(world.identity.devices()) == 2


async def test_a_leaf_of_another_device_does_not_pass_under_a_known_fingerprint(
    world: IdentityWorld,
) -> None:
    leaf = world.leaf(_pem(await world.pair(DEVICE)))
    forged = VerifiedLeaf(
        leaf.fingerprint, OTHER.device_id, leaf.not_before_unix_ms, leaf.not_after_unix_ms
    )
    found = await world.identity.admit(forged, OTHER.device_id)
    assert isinstance(found, NodeRefusal)


@pytest.mark.parametrize(
    "wrong",
    [{"overlap_ms": -1}, {"device_life_ms": 1}, {"server_life_ms": 0}, {"reap_every_ms": 0}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        IdentitySettings(**wrong)  # type: ignore[arg-type]
