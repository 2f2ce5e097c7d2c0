"""Which certificates proxies are told of a worker: those of the paired device of its id, now."""

from pathlib import Path

from palyra_fleet.identity.messages import PairedDevice
from palyra_fleet.nodes.worker_certificates import certificates_of
from tests.fakes.identity_world import identity_world
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice

HOUR = 3_600_000
DEVICE = PairingDevice(ulid(1))


async def test_a_paired_devices_certificates_are_told_while_they_are_good(tmp_path: Path) -> None:
    async with identity_world(tmp_path / "state") as world:
        assert certificates_of(world.identity, DEVICE.device_id) == ()
        pem = (await world.pair(DEVICE)).mtls_client_certificate_pem
        first = world.leaf(pem).fingerprint
        assert certificates_of(world.identity, DEVICE.device_id) == (first,)
        assert certificates_of(world.identity, ulid(2)) == ()

        caller = await world.admit(pem)
        assert isinstance(caller, PairedDevice)
        rotated = await world.identity.rotate(caller, PairingDevice(caller.device_id).csr())
        second = world.leaf(rotated.certificate_pem).fingerprint
        assert set(certificates_of(world.identity, DEVICE.device_id)) == {first, second}

        await world.admit(rotated.certificate_pem)
        world.clock.forward(60_000)
        assert certificates_of(world.identity, DEVICE.device_id) == (second,)

        await world.identity.revoke_device(DEVICE.device_id, "stolen", "anna")
        assert certificates_of(world.identity, DEVICE.device_id) == ()


async def test_a_certificate_whose_day_is_over_is_told_no_more(tmp_path: Path) -> None:
    async with identity_world(tmp_path / "state") as world:
        await world.pair(DEVICE)
        world.clock.forward(24 * HOUR - 1)
        assert len(certificates_of(world.identity, DEVICE.device_id)) == 1
        world.clock.forward(1)
        assert certificates_of(world.identity, DEVICE.device_id) == ()
