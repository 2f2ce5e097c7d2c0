"""IdentityManager: the gate, rotation in two phases, revocation, and what it does when it cannot
write."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.identity.certificate_request import checked_public_key
from palyra_fleet.identity.device_ledger import ROTATIONS_PER_HOUR
from palyra_fleet.identity.device_records import CertificateState, IdentityEventReason
from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.identity.messages import (
    IssuedCertificate,
    PairedDevice,
    PairingStatus,
    Replay,
)
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused
from tests.fakes.fleet_world import Clock
from tests.fakes.identity_world import (
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


async def test_the_four_rows_of_the_gate(world: IdentityWorld) -> None:
    pem = _pem(await world.pair(DEVICE))
    other = _pem(await world.pair(OTHER))
    assert await _reason(world, pem, DEVICE.device_id) is None
    assert await _reason(world, pem, OTHER.device_id) is NodeReason.GATE_OTHER_DEVICE
    assert isinstance(world.identity.verify([]), NodeRefusal)
    leaf = world.leaf(pem)
    unknown = replace(leaf, fingerprint="0" * 64)
    refusal = await world.identity.admit(unknown, DEVICE.device_id)
    assert isinstance(refusal, NodeRefusal)
    assert refusal.reason is NodeReason.GATE_UNKNOWN
    await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    assert await _reason(world, pem, DEVICE.device_id) is NodeReason.GATE_REVOKED
    assert await _reason(world, pem, OTHER.device_id) is NodeReason.GATE_REVOKED
    assert await _reason(world, other) is None


async def test_a_certificate_ends_on_an_open_stream_too(world: IdentityWorld) -> None:
    leaf = world.leaf(_pem(await world.pair(DEVICE)))
    world.clock.forward(24 * HOUR - 1)
    assert isinstance(await world.identity.admit(leaf, None), PairedDevice)
    world.clock.forward(1)
    ended = await world.identity.admit(leaf, None)
    assert isinstance(ended, NodeRefusal)
    assert ended.reason is NodeReason.GATE_NO_CERTIFICATE
    world.clock.forward(-HOUR)  # a clock that is set back revives nothing
    assert isinstance(await world.identity.admit(leaf, None), NodeRefusal)


async def test_the_old_certificate_is_good_until_the_new_one_is_used(tmp_path: Path) -> None:
    async with identity_world(tmp_path / "state", identity=NO_OVERLAP) as world:
        first = _pem(await world.pair(DEVICE))
        second = (await _rotate(world, first)).certificate_pem
        world.clock.forward(10 * HOUR)
        assert await _reason(world, first) is None
        assert world.notices == []
        assert await _reason(world, second) is None
        assert await _reason(world, first) is NodeReason.GATE_REVOKED
        assert await _reason(world, second) is None
        await asyncio.sleep(0)
        assert [n.fingerprints for n in world.notices] == [{world.leaf(first).fingerprint}]
        assert not world.notices[0].device_gone


async def test_an_overlap_keeps_the_old_certificate_for_a_while(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    second = (await _rotate(world, first)).certificate_pem
    assert await _reason(world, second) is None
    world.clock.forward(29_999)
    assert await _reason(world, first) is None
    world.clock.forward(1)
    assert await _reason(world, first) is NodeReason.GATE_REVOKED
    world.clock.forward(-20_000)
    assert await _reason(world, first) is NodeReason.GATE_REVOKED
    states = [c.state for c in world.identity.history(DEVICE.device_id)]
    assert states == [CertificateState.REVOKED, CertificateState.CURRENT]


async def test_the_reaper_ends_overlaps_and_tells(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    second = (await _rotate(world, first)).certificate_pem
    assert await _reason(world, second) is None
    world.clock.forward(30_000)
    await world.identity.settle()
    assert [n.reason for n in world.notices] == ["rotated"]


async def test_a_lost_answer_to_a_rotation_costs_nothing(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    lost = (await _rotate(world, first)).certificate_pem
    second = (await _rotate(world, first)).certificate_pem
    assert await _reason(world, lost) is NodeReason.GATE_REVOKED
    assert await _reason(world, first) is None
    assert await _reason(world, second) is None


async def test_only_the_current_certificate_rotates(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    caller = await world.admit(first)
    assert isinstance(caller, PairedDevice)
    second = (await _rotate(world, first)).certificate_pem
    assert await _reason(world, second) is None
    with pytest.raises(NodeRefused, match="revoked"):  # retiring: still admitted, rotates no more
        await world.identity.rotate(caller, DEVICE.csr())
    assert await _reason(world, first) is None


async def test_rotations_are_bounded(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    for _ in range(ROTATIONS_PER_HOUR):
        await _rotate(world, first)
    with pytest.raises(NodeRefused) as refused:
        await _rotate(world, first)
    assert refused.value.refusal.reason is NodeReason.ROTATIONS_FULL
    world.clock.forward(HOUR)
    await _rotate(world, first)


async def test_a_rotation_takes_a_good_request(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    caller = await world.admit(first)
    assert isinstance(caller, PairedDevice)
    for csr, reason in (("", NodeReason.CSR_MISSING), ("x", NodeReason.CSR_INVALID)):
        with pytest.raises(NodeRefused) as refused:
            await world.identity.rotate(caller, csr)
        assert refused.value.refusal.reason is reason
    assert checked_public_key("") is None
    assert len(world.identity.history(DEVICE.device_id)) == 1


async def test_a_rotation_is_offered_at_half_life(world: IdentityWorld) -> None:
    found = await world.admit(_pem(await world.pair(DEVICE)))
    assert isinstance(found, PairedDevice)
    assert found.rotate_from_unix_ms == world.clock() + 12 * HOUR


async def test_revoking_a_certificate_reaches_what_was_rotated_from_it(
    world: IdentityWorld,
) -> None:
    first = _pem(await world.pair(DEVICE))
    second = (await _rotate(world, first)).certificate_pem
    assert await _reason(world, second) is None
    third = (await _rotate(world, second)).certificate_pem
    await world.identity.revoke_fingerprint(world.leaf(second).fingerprint, "leaked", "anna")
    assert await _reason(world, second) is NodeReason.GATE_REVOKED
    assert await _reason(world, third) is NodeReason.GATE_REVOKED
    assert await _reason(world, first) is None  # until its overlap ends
    with pytest.raises(NodeRefused) as refused:
        await world.identity.revoke_fingerprint("0" * 64, "leaked", "anna")
    assert refused.value.refusal.reason is NodeReason.CERTIFICATE_UNKNOWN


async def test_revocation_is_told_before_the_command_returns(world: IdentityWorld) -> None:
    pem = _pem(await world.pair(DEVICE))
    await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    assert [(n.device_id, n.device_gone, n.reason) for n in world.notices] == [
        (DEVICE.device_id, True, "stolen")
    ]
    assert world.notices[0].fingerprints == {world.leaf(pem).fingerprint}
    await world.identity.revoke_device(DEVICE.device_id, "again", "anna")
    assert len(world.notices) == 1


async def test_a_listener_that_left_or_fails_keeps_nobody_from_hearing(
    world: IdentityWorld,
) -> None:
    heard: list[str] = []
    unhandled: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(str(context["exception"])))

    def broken(_: object) -> None:
        raise RuntimeError("a listener's own trouble")

    leave = world.identity.subscribe(lambda notice: heard.append("left"))
    world.identity.subscribe(broken)
    world.identity.subscribe(lambda notice: heard.append(notice.device_id))
    leave()
    leave()
    await world.pair(DEVICE)
    await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
    assert heard == [DEVICE.device_id]
    assert unhandled == ["a listener's own trouble"]


async def test_a_removed_device_is_unknown_and_may_pair_again(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    await world.identity.remove_device(DEVICE.device_id, "scrapped", "anna")
    assert world.identity.device(DEVICE.device_id) is None
    assert await _reason(world, first) is NodeReason.GATE_REVOKED
    second = _pem(await world.pair(DEVICE))
    assert await _reason(world, second) is None
    assert await _reason(world, first) is NodeReason.GATE_REVOKED
    with pytest.raises(NodeRefused) as refused:
        await world.identity.remove_device(ulid(9), "never was", "anna")
    assert refused.value.refusal.reason is NodeReason.DEVICE_UNKNOWN


async def test_pairing_again_revokes_every_earlier_certificate(tmp_path: Path) -> None:
    async with identity_world(tmp_path / "state", identity=NO_OVERLAP) as world:
        first = _pem(await world.pair(DEVICE))
        pending = (await _rotate(world, first)).certificate_pem
        second = _pem(await world.pair(DEVICE))
        assert await _reason(world, second) is None
        for old in (first, pending):
            assert await _reason(world, old) is NodeReason.GATE_REVOKED


async def test_sixty_four_first_uses_at_once_are_one(world: IdentityWorld) -> None:
    first = _pem(await world.pair(DEVICE))
    second = (await _rotate(world, first)).certificate_pem
    answers = await asyncio.gather(*(world.admit(second) for _ in range(64)))
    assert all(isinstance(answer, PairedDevice) for answer in answers)
    events = await world.identity.store.events(0, 1_000)
    assert [e.reason for e in events].count("identity.certificate_first_used") == 1


async def test_sixty_four_rotations_at_once_leave_one_good_next_certificate(
    world: IdentityWorld,
) -> None:
    first = _pem(await world.pair(DEVICE))
    caller = await world.admit(first)
    assert isinstance(caller, PairedDevice)

    async def rotate() -> bool:
        try:
            await world.identity.rotate(caller, DEVICE.csr())
        except NodeRefused as refused:
            assert refused.refusal.reason is NodeReason.ROTATIONS_FULL
            return False
        return True

    assert sum(await asyncio.gather(*(rotate() for _ in range(64)))) == ROTATIONS_PER_HOUR
    states = [c.state for c in world.identity.history(DEVICE.device_id)]
    assert states.count(CertificateState.PENDING) == 1
    assert states.count(CertificateState.CURRENT) == 1


async def test_a_call_recorded_before_a_restart_is_stale_after_it(tmp_path: Path) -> None:
    store, clock = MemoryPairingStore(), Clock()
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        recorded = Replay("nonce", clock())
        assert world.identity.replay(DEVICE.device_id, recorded) is None
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        refusal = world.identity.replay(DEVICE.device_id, recorded)
        assert refusal is not None
        assert refusal.reason is NodeReason.REPLAY_STALE
        clock.forward(1)
        assert world.identity.replay(DEVICE.device_id, Replay("another", clock())) is None


async def test_an_older_database_is_noticed_when_a_later_certificate_comes(tmp_path: Path) -> None:
    store, clock, file = MemoryPairingStore(), Clock(), tmp_path / "state" / "identity.sqlite3"
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        await world.pair(DEVICE)
    older = file.read_bytes()
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        later = _pem(await world.pair(OTHER))
    file.write_bytes(older)
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        assert await _reason(world, later) is NodeReason.GATE_UNKNOWN
        assert await _reason(world, later) is NodeReason.GATE_UNKNOWN
        noted = [
            event.detail["device_id"]
            for event in await world.identity.store.events(0, 100)
            if event.reason == IdentityEventReason.CERTIFICATE_FORGOTTEN
        ]
    assert noted == [OTHER.device_id]


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    store, clock = MemoryPairingStore(), Clock()
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        first = _pem(await world.pair(DEVICE))
        other = _pem(await world.pair(OTHER))
        pending = (await _rotate(world, other)).certificate_pem
        await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
        pepper, bundle = world.identity.pairing_pepper, world.identity.authority.trust_bundle_pem
    clock.forward(-HOUR)  # and a clock that went back meanwhile
    async with identity_world(tmp_path / "state", store=store, clock=clock) as world:
        assert world.identity.now() == clock() + HOUR
        assert await _reason(world, first) is NodeReason.GATE_REVOKED
        assert await _reason(world, other) is None
        assert await _reason(world, pending) is None
        assert world.identity.pairing_pepper == pepper
        assert world.identity.authority.trust_bundle_pem == bundle
        assert await world.identity.store.verify_events() > 0
    published = (tmp_path / "state" / "authority" / "gateway-ca.pem").read_text()
    assert published == bundle
