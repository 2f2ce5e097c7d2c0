"""The Unix socket where the kernel says who connects: accounts, and the process that asked."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from palyra_egress.proxy.channels.peer_process import peer_process, started_ticks
from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import PeerSocketSettings, SocketPathError
from palyra_egress.reasons import Reason
from tests.egress.proxy.channels.channel_world import ChannelWorld, channel_world
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    WORKER,
    basic,
    read_reply,
    read_to_end,
)

_CONNECT_AND_PASS_ON = """
import socket, sys
ours = socket.socket(fileno=int(sys.argv[1]))
reached = socket.socket(socket.AF_UNIX)
reached.connect(sys.argv[2])
socket.send_fds(ours, [b"x"], [reached.fileno()])
sys.stdin.read()
"""


def settings(directory: Path, uid: int | None = None) -> ChannelSettings:
    account = os.getuid() if uid is None else uid
    return ChannelSettings(
        peer_socket=PeerSocketSettings(directory / "workers.sock", {account: WORKER})
    )


@pytest.fixture
async def world(tmp_path: Path):
    async with channel_world(tmp_path, settings(tmp_path)) as made:
        yield made


async def test_the_account_behind_a_connection_is_its_worker(world: ChannelWorld, tmp_path: Path):
    reply = await world.ask(await world.over_socket(tmp_path / "workers.sock"))
    assert reply is not None and (reply.status, reply.body) == (200, b"hello")
    (entry,) = world.harness.verdicts()
    assert (entry["worker_id"], entry["lease_id"]) == (WORKER, LEASE)


async def test_an_account_that_stands_for_no_worker_is_cut_off(tmp_path: Path):
    async with channel_world(tmp_path, settings(tmp_path, os.getuid() + 1)) as world:
        reader, writer = await world.over_socket(tmp_path / "workers.sock")
        writer.write(world.request(basic()))
        assert await read_to_end(reader) == b""
        (entry,) = world.harness.verdicts()
        assert (entry["reason"], entry["early"]) == ("egress.no_identity", True)
        world.nothing_left()


async def test_accounts_that_stand_for_nobody_cannot_fill_the_audit_log(tmp_path: Path):
    async with channel_world(tmp_path, settings(tmp_path, os.getuid() + 1)) as world:
        core = world.harness.core
        while core.refuse_early(Reason.NO_IDENTITY, None).decision_id:
            pass  # until strangers have had their share
        before = len(world.harness.verdicts())
        reader, _ = await world.over_socket(tmp_path / "workers.sock")
        assert await read_to_end(reader) == b""
        core.audit_unanswered()
        told = [e["connections"] for e in world.harness.audit() if e["kind"] == "unanswered"]
        # in between a little of the share may have come back
        assert len(world.harness.verdicts()) - before + sum(told) >= 2
        assert sum(told) >= 1


async def test_without_a_live_lease_the_account_speaks_for_nobody(
    world: ChannelWorld, tmp_path: Path
):
    world.harness.tell("unbind", lease_id=LEASE)
    reply = await world.ask(await world.over_socket(tmp_path / "workers.sock"))
    assert reply is not None and reply.reason == "egress.no_lease"
    world.nothing_left()


async def test_another_workers_credentials_cost_the_accounts_worker(
    world: ChannelWorld, tmp_path: Path
):
    stream = await world.over_socket(tmp_path / "workers.sock")
    reply = await world.ask(stream, basic(OTHER_LEASE, OTHER_SECRET))
    assert reply is not None and reply.reason == "egress.foreign_credentials"
    assert world.harness.core.view.is_blocked(WORKER)
    world.nothing_left()


async def test_a_connection_whose_process_has_ended_speaks_for_nobody(
    world: ChannelWorld, tmp_path: Path
):
    """A process connects, hands the connection over, and ends: its number may be anybody's now."""
    ours, its = socket.socketpair()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CONNECT_AND_PASS_ON, str(its.fileno())),
        str(tmp_path / "workers.sock"),
        pass_fds=(its.fileno(),),
        stdin=asyncio.subprocess.PIPE,
    )
    its.close()
    with ours:
        _, (descriptor,), _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
    stream = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    world.writers.append(stream[1])
    alive = await world.ask(stream)
    assert alive is not None and alive.status == 200
    assert child.stdin is not None
    child.stdin.close()
    await child.wait()
    gone = await world.ask(stream)  # cut already, perhaps: it is looked at between requests too
    assert gone is None or (gone.status, gone.reason) == (403, "egress.identity_changed")
    assert len(world.upstream.heads) == 1


async def test_the_socket_is_gone_when_the_proxy_has_stopped(tmp_path: Path):
    async with channel_world(tmp_path, settings(tmp_path)):
        assert (tmp_path / "workers.sock").is_socket()
    assert not (tmp_path / "workers.sock").exists()


async def test_an_old_socket_is_replaced_and_anything_else_is_refused(tmp_path: Path):
    path = tmp_path / "workers.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    async with channel_world(tmp_path, settings(tmp_path)) as world:
        assert (await world.ask(await world.over_socket(path))) is not None
        with pytest.raises(SocketPathError, match="somebody listens there already"):
            async with channel_world(tmp_path / "second", settings(tmp_path)):
                raise AssertionError("two proxies at one socket")
    path.write_text("not a socket")
    with pytest.raises(SocketPathError, match="is no socket"):
        async with channel_world(tmp_path, settings(tmp_path)):
            raise AssertionError("a file was taken for a socket")
    assert path.read_text() == "not a socket"


def test_the_kernel_names_the_process_that_connected(tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        accepted, _ = server.accept()
        with accepted:
            peer = peer_process(accepted)
    assert peer is not None
    assert (peer.uid, peer.pid) == (os.getuid(), os.getpid())
    assert peer.is_there()


def test_what_has_no_peer_and_who_is_no_process_is_nobody():
    with socket.socket(socket.AF_INET) as unconnected:
        assert peer_process(unconnected) is None
    assert started_ticks(2**22 + 1) is None


async def test_one_request_after_the_other_on_one_connection(world: ChannelWorld, tmp_path: Path):
    stream = await world.over_socket(tmp_path / "workers.sock")
    for _ in range(3):
        reply = await world.ask(stream)
        assert reply is not None and reply.status == 200
    stream[1].write(world.request(basic()))
    reply = await read_reply(stream[0])
    assert reply is not None and reply.status == 200


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
async def test_no_socket_is_opened_where_others_could_put_theirs(tmp_path: Path, mode: int):
    """Whoever may write there could take the socket's place, and be the proxy for everybody."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(SocketPathError, match=r"shared: others may put a socket of theirs there"):
        async with channel_world(tmp_path, settings(shared)):
            raise AssertionError("a socket where others may write")
    assert list(shared.iterdir()) == []


async def test_a_directory_where_only_owners_remove_their_own_will_do(tmp_path: Path):
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    async with channel_world(tmp_path, settings(sticky)) as world:
        reply = await world.ask(await world.over_socket(sticky / "workers.sock"))
        assert reply is not None and reply.status == 200
