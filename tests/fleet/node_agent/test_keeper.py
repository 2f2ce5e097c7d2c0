"""A machine renews its certificate by itself, once, and the old one ends; on the real listener."""

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from palyra_fleet.client import FleetProblem, FleetUnavailable
from palyra_fleet.client.device import DeviceClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.node_agent.keeper import DeviceKeeper
from palyra_fleet.node_agent.material import AgentHome, NotPaired
from tests.fakes.identity_world import QUIET
from tests.fakes.remote_world import RemoteWorld, remote_world

LIFE_MS = 3_600_000
SETTINGS = IdentitySettings(reap_every_ms=QUIET, device_life_ms=LIFE_MS, overlap_ms=0)


class Ahead:
    """A machine's clock. TLS looks at the real time, so only the keeper's is moved."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return now_unix_ms() + self.ahead_ms


async def accepted(world: RemoteWorld, keeper: DeviceKeeper) -> None:
    async with DeviceClient(keeper.fleet(world.url)) as client:
        await client.is_accepted()


async def test_it_is_renewed_from_half_of_its_life_on_and_the_old_one_ends(tmp_path: Path) -> None:
    async with remote_world(identity=SETTINGS) as world:
        machine = await world.pair("proxy")
        clock = Ahead()
        keeper = DeviceKeeper(machine.store_in(tmp_path / "home"), clock)
        first = keeper.material.certificate.fingerprint
        assert not await keeper.renew_if_due(world.url)
        clock.ahead_ms = LIFE_MS // 2
        assert await keeper.renew_if_due(world.url)
        clock.ahead_ms = 0
        material = AgentHome(tmp_path / "home").load()
        assert material.certificate.fingerprint != first and material.next_certificate is None
        await accepted(world, keeper)
        assert not await keeper.renew_if_due(world.url)
        async with machine.as_itself() as old:
            with pytest.raises((FleetProblem, FleetUnavailable)):
                await old.is_accepted()
        assert keeper.signing_key.public_key == machine.key.public_key


async def test_a_machine_without_a_stream_hears_of_a_demand_at_its_next_look(
    tmp_path: Path,
) -> None:
    async with remote_world(identity=SETTINGS) as world:
        machine = await world.pair("proxy")
        keeper = DeviceKeeper(machine.store_in(tmp_path / "home"), look_every_s=0)
        first = keeper.material.certificate
        assert not await keeper.renew_if_due(world.url)
        await world.identity.demand_rotation(machine.device_id, 60_000, "leaked", "alice")
        assert await keeper.renew_if_due(world.url)
        assert keeper.material.certificate.private_key_pem != first.private_key_pem
        assert not await keeper.renew_if_due(world.url)
        await accepted(world, keeper)
        async with machine.as_itself() as old:
            with pytest.raises((FleetProblem, FleetUnavailable)):
                await old.is_accepted()


async def test_of_many_programs_one_asks_in_the_time_of_a_look(tmp_path: Path) -> None:
    """A machine has few calls of its own, and may run hundreds of workers."""
    async with remote_world(identity=SETTINGS) as world:
        home = (await world.pair("node")).store_in(tmp_path / "home")
        clock = Ahead()
        keepers = [DeviceKeeper(home, clock, look_every_s=3_600) for _ in range(3)]
        assert not await keepers[0].renew_if_due(world.url)
        first = home.asked_file.stat().st_mtime_ns
        await world.identity.demand_rotation(home.load().device_id, 3_600_000, "leaked", "alice")
        for keeper in keepers:
            assert not await keeper.renew_if_due(world.url)
        assert home.asked_file.stat().st_mtime_ns == first
        clock.ahead_ms = 1_500_000
        assert not await keepers[1].renew_if_due(world.url)
        os.utime(home.asked_file, (0, 0))
        assert await keepers[2].renew_if_due(world.url)


async def test_of_many_programs_one_renews_and_all_use_the_new_one(tmp_path: Path) -> None:
    async with remote_world(identity=SETTINGS) as world:
        home = (await world.pair("node")).store_in(tmp_path / "home")
        clock = Ahead()
        keepers = [DeviceKeeper(home, clock) for _ in range(6)]
        clock.ahead_ms = LIFE_MS // 2
        renewed = await asyncio.gather(*(keeper.renew_if_due(world.url) for keeper in keepers))
        clock.ahead_ms = 0
        assert sum(renewed) == 1
        fingerprints = {keeper.material.newest.fingerprint for keeper in keepers}
        assert len(fingerprints) == 1
        for keeper in keepers:
            await accepted(world, keeper)


async def test_while_a_node_agent_holds_the_home_it_renews_and_nobody_else(tmp_path: Path) -> None:
    async with remote_world(identity=SETTINGS) as world:
        home = (await world.pair("node")).store_in(tmp_path / "home")
        clock = Ahead()
        clock.ahead_ms = LIFE_MS // 2
        held = os.open(home.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            assert not await DeviceKeeper(home, clock).renew_if_due(world.url)
        finally:
            os.close(held)
        assert await DeviceKeeper(home, clock).renew_if_due(world.url)


async def test_a_next_certificate_that_the_fleet_does_not_know_is_given_up(tmp_path: Path) -> None:
    """The fleet was restored from before the rotation."""
    async with remote_world(identity=SETTINGS) as world:
        machine, stranger = await world.pair("node"), await world.pair("node")
        home = machine.store_in(tmp_path / "home")
        await world.identity.revoke_device(stranger.device_id, "gone", "alice")
        home.save(home.load().with_next(stranger.certificate, ""))
        keeper = DeviceKeeper(home)
        with pytest.raises(FleetProblem):
            await keeper.renew_if_due(world.url)
        assert keeper.material.newest.fingerprint == machine.certificate.fingerprint
        await accepted(world, keeper)


def test_a_home_that_is_not_paired_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotPaired):
        _ = DeviceKeeper(AgentHome(tmp_path)).material
