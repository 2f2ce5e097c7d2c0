"""One listener for each lease: there while it lives, and whoever is given it is its worker."""

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import LeaseListenerSettings, SocketPathError
from tests.egress.proxy.channels.channel_world import ChannelWorld, channel_world
from tests.fakes.free_port import free_port
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    OTHER_WORKER,
    WORKER,
    basic,
    binding,
    read_to_end,
)


def settings(root: Path, **changes: object) -> ChannelSettings:
    chosen: dict[str, object] = {"directory": root / "leases", **changes}
    return ChannelSettings(lease_listeners=LeaseListenerSettings(**chosen))  # type: ignore[arg-type]


async def followed(world: ChannelWorld) -> None:
    """The proxy has opened and closed what the view says by now."""
    channels = world.harness.proxy.channels
    leases = world.harness.core.view.live_leases()
    async with asyncio.timeout(60):
        while channels.lease_listeners.open_leases != leases.keys():
            channels.followed.clear()
            await channels.followed.wait()


@pytest.fixture
async def world(tmp_path: Path):
    async with channel_world(tmp_path, settings(tmp_path)) as made:
        await followed(made)
        yield made


async def test_each_live_lease_has_a_socket_of_its_own(world: ChannelWorld, tmp_path: Path):
    for lease, worker in ((LEASE, WORKER), (OTHER_LEASE, OTHER_WORKER)):
        path = tmp_path / "leases" / f"{lease}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reply = await world.ask(await world.over_socket(path))
        assert reply is not None and (reply.status, reply.body) == (200, b"hello")
        entry = world.harness.verdicts()[-1]
        assert (entry["worker_id"], entry["lease_id"]) == (worker, lease)


async def test_the_socket_goes_with_the_lease_and_so_does_what_is_open(
    world: ChannelWorld, tmp_path: Path
):
    path = tmp_path / "leases" / f"{LEASE}.sock"
    stream = await world.over_socket(path)
    assert (await world.ask(stream)) is not None
    world.harness.tell("unbind", lease_id=LEASE)
    assert await read_to_end(stream[0]) == b""
    await followed(world)
    assert not path.exists()
    assert (tmp_path / "leases" / f"{OTHER_LEASE}.sock").exists()


async def test_a_connection_made_before_its_lease_ended_speaks_no_more(
    world: ChannelWorld, tmp_path: Path
):
    """It had said nothing yet, so nobody knew whose it was when the lease ended."""
    stream = await world.over_socket(tmp_path / "leases" / f"{LEASE}.sock")
    world.harness.tell("unbind", lease_id=LEASE)
    reply = await world.ask(stream)
    assert reply is None or reply.reason == "egress.no_lease"
    world.nothing_left()


async def test_the_next_lease_of_a_worker_does_not_take_over_the_socket_of_the_last(
    world: ChannelWorld, tmp_path: Path
):
    stream = await world.over_socket(tmp_path / "leases" / f"{LEASE}.sock")
    new_lease = "01ARZ3NDEKTSV4RRFFQ69G5FB0"
    world.harness.tell("unbind", lease_id=LEASE)
    world.harness.tell("bind", bindings=(binding(lease=new_lease, fence=1),))
    reply = await world.ask(stream)
    assert reply is None or reply.reason == "egress.no_lease"
    await followed(world)
    stream = await world.over_socket(tmp_path / "leases" / f"{new_lease}.sock")
    reply = await world.ask(stream)
    assert reply is not None and reply.status == 200
    assert world.harness.verdicts()[-1]["lease_id"] == new_lease


CREDENTIALS_THERE = {
    "its own": (basic(), 200, ""),
    "another worker's": (basic(OTHER_LEASE, OTHER_SECRET), 403, "egress.foreign_credentials"),
    "wrong": (basic(secret="w" * 43), 407, "egress.bad_credentials"),
    "unreadable": ("Basic ?", 407, "egress.bad_credentials"),
}


@pytest.mark.parametrize("case", CREDENTIALS_THERE)
async def test_credentials_that_are_sent_must_be_those_of_the_lease(
    world: ChannelWorld, tmp_path: Path, case: str
):
    credentials, status, reason = CREDENTIALS_THERE[case]
    stream = await world.over_socket(tmp_path / "leases" / f"{LEASE}.sock")
    reply = await world.ask(stream, credentials)
    assert reply is not None and reply.status == status
    if reason:
        assert reply.reason == reason
        world.nothing_left()


async def test_an_address_of_one_worker_is_open_while_it_has_a_lease(tmp_path: Path):
    where = ("127.0.0.1", free_port())
    chosen = settings(tmp_path, directory=None, addresses={WORKER: where})
    async with channel_world(tmp_path, chosen) as world:
        await followed(world)
        stream = await asyncio.open_connection(*where)
        world.writers.append(stream[1])
        reply = await world.ask(stream)
        assert reply is not None and reply.status == 200
        assert world.harness.verdicts()[-1]["worker_id"] == WORKER
        assert where in world.harness.core.service._forbidden
        world.harness.tell("unbind", lease_id=LEASE)
        await followed(world)
        with pytest.raises(OSError):
            await asyncio.open_connection(*where)


async def test_a_listener_that_cannot_be_opened_is_told_and_tried_again(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        chosen = settings(tmp_path, directory=None, addresses={WORKER: taken.getsockname()})
        async with channel_world(tmp_path, chosen) as world:
            listeners = world.harness.proxy.channels.lease_listeners
            await listeners.follow(world.harness.core.view.live_leases())
            assert LEASE in (world.harness.proxy.channels.problem or "")
            assert world.harness.proxy.enforcement.problems()["channels"] != "ok"
            assert listeners.open_leases == {OTHER_LEASE}
            taken.close()
            await followed(world)
            assert world.harness.proxy.channels.problem is None


async def test_sockets_of_an_earlier_proxy_are_cleared_and_files_are_not(tmp_path: Path):
    leases = tmp_path / "leases"
    leases.mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(leases / "01ARZ3NDEKTSV4RRFFQ69G5FC0.sock"))
    async with channel_world(tmp_path, settings(tmp_path)) as world:
        await followed(world)
        assert {path.stem for path in leases.iterdir()} == {LEASE, OTHER_LEASE}
    assert list(leases.iterdir()) == []
    (leases / "notes.sock").write_text("mine")
    with pytest.raises(SocketPathError, match=r"notes.sock: is there and is no socket"):
        async with channel_world(tmp_path, settings(tmp_path)):
            raise AssertionError("a file was taken for a socket")


async def test_the_mode_of_the_sockets_can_be_chosen(tmp_path: Path):
    async with channel_world(tmp_path, settings(tmp_path, mode=0o660)) as world:
        await followed(world)
        path = tmp_path / "leases" / f"{LEASE}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


async def test_a_path_that_no_socket_can_have_is_told(tmp_path: Path):
    chosen = settings(tmp_path, directory=tmp_path / ("x" * 100))
    async with channel_world(tmp_path, chosen) as world:
        listeners = world.harness.proxy.channels.lease_listeners
        await listeners.follow(world.harness.core.view.live_leases())
        assert "107 bytes" in (world.harness.proxy.channels.problem or "")
