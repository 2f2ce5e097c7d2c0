"""When anything is wrong nothing leaves by any channel, however well it knows its worker."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import LeaseListenerSettings, PeerSocketSettings
from tests.egress.proxy.channels.channel_world import (
    ChannelWorld,
    bound,
    certificate_for,
    channel_world,
    worker_tls,
)
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    OTHER_WORKER,
    WORKER,
    binding,
)

type Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type Way = Callable[[ChannelWorld], Awaitable[Stream]]


def everything(directory: Path) -> ChannelSettings:
    """All channels at once."""
    return ChannelSettings(
        worker_tls=worker_tls(directory).worker_tls,
        peer_socket=PeerSocketSettings(directory / "peers.sock", {os.getuid(): WORKER}),
        lease_listeners=LeaseListenerSettings(directory / "leases"),
    )


async def by_certificate(world: ChannelWorld) -> Stream:
    return await world.over_tls(world.shown)


async def by_account(world: ChannelWorld) -> Stream:
    return await world.over_socket(world.directory / "peers.sock")


async def by_listener(world: ChannelWorld) -> Stream:
    return await world.over_socket(world.directory / "leases" / f"{LEASE}.sock")


@pytest.fixture
async def world(tmp_path: Path):
    async with channel_world(tmp_path, everything(tmp_path)) as made:
        made.shown = certificate_for(tmp_path)
        made.rebind(made.shown.fingerprint)
        listeners = made.harness.proxy.channels.lease_listeners
        assert listeners is not None
        await listeners.follow(made.harness.core.view.live_leases())
        yield made


def nobody_was_heard(world: ChannelWorld) -> None:
    world.harness.core.view._heard_at_monotonic_ms = None


def the_fleet_went_back(world: ChannelWorld) -> None:
    world.harness.core.view._rolled_back = True


def it_is_stopping(world: ChannelWorld) -> None:
    world.harness.proxy.enforcement.refuse_everything()


def there_is_no_policy(world: ChannelWorld) -> None:
    world.harness.core.service.replace_policy(None)


def the_audit_log_is_closed(world: ChannelWorld) -> None:
    world.harness.core.audit.close()


def the_worker_is_blocked(world: ChannelWorld) -> None:
    world.harness.tell("block", worker_id=WORKER)


def the_lease_has_ended(world: ChannelWorld) -> None:
    world.harness.tell("unbind", lease_id=LEASE)


def another_lease_has_come(world: ChannelWorld) -> None:
    other = binding(OTHER_WORKER, OTHER_LEASE, OTHER_SECRET)
    world.harness.tell("snapshot", bindings=(other,))


def the_fence_is_another(world: ChannelWorld) -> None:
    view = world.harness.core.view
    told = bound(*view._bindings[LEASE].client_certificates_sha256, fence=2)
    world.harness.core.connections.cut(view._bind((told,)))


WRONG: Final = (
    nobody_was_heard,
    the_fleet_went_back,
    it_is_stopping,
    there_is_no_policy,
    the_audit_log_is_closed,
    the_worker_is_blocked,
    the_lease_has_ended,
    another_lease_has_come,
)
WAYS: Final[tuple[Way, ...]] = (by_certificate, by_account, by_listener)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", WRONG)
async def test_nothing_leaves_on_a_connection_made_before_it_went_wrong(
    world: ChannelWorld, way: Way, wrong: Callable[[ChannelWorld], None]
):
    stream = await way(world)
    wrong(world)
    reply = await world.ask(stream)
    assert reply is None or reply.status in (403, 503)
    world.nothing_left()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrong", [*WRONG, the_fence_is_another])
async def test_nothing_more_leaves_on_a_connection_that_carried_a_request(
    world: ChannelWorld, way: Way, wrong: Callable[[ChannelWorld], None]
):
    stream = await way(world)
    reply = await world.ask(stream)
    assert reply is not None and reply.status == 200
    wrong(world)
    try:
        reply = await world.ask(stream)
    except ConnectionError:
        reply = None
    assert reply is None or reply.status in (403, 503)
    assert len(world.upstream.heads) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_proxy_that_stops_lets_nobody_in_and_leaves_no_socket(
    world: ChannelWorld, way: Way
):
    stream = await way(world)
    reply = await world.ask(stream)
    assert reply is not None and reply.status == 200
    await world.harness.proxy.stop()
    with contextlib.suppress(ConnectionError):
        assert await world.ask(stream) is None
    with pytest.raises(OSError):
        await way(world)
    assert list(world.directory.glob("**/*.sock")) == []
    assert len(world.upstream.heads) == 1
