"""How an open WebSocket ends, and what a fault anywhere on its way leaves behind: nothing."""

import struct

import pytest
from wsproto.frame_protocol import Opcode

from palyra_egress.policy.load import load_policy
from palyra_egress.proxy.guard.guard import ConnectionGuard
from tests.egress.proxy.held_deadlines import held_deadlines
from tests.egress.proxy.websocket.websocket_world import (
    open_world,
)
from tests.fakes.proxy_harness import WORKER, read_to_end

CLOSE_1000 = struct.pack("!H", 1000)


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


# --- its end --------------------------------------------------------------------------------------


async def test_a_quarantined_worker_loses_its_socket_in_the_same_sweep(world):
    socket = await world.open()
    world.harness.tell("block", worker_id=WORKER)
    assert await socket.is_cut()
    await world.server.has_ended.wait()
    socket.send(Opcode.TEXT, b"still there?")
    assert world.server.got == b""
    (transfer,) = world.transfers()
    assert transfer["request_frames"] == 0


async def test_a_tightened_policy_cuts_an_open_socket_and_a_kept_one_goes_on(world):
    socket = await world.open()
    policy_file = world.harness.proxy.enforcement.settings.policy_file
    kept = policy_file.read_text() + "# the same\n"
    world.core.service.replace_policy(load_policy(kept.encode(), "policy.yaml"))
    world.core.connections.review()
    socket.send(Opcode.TEXT, b"hello")
    await world.server.wait_for(lambda server: server.got == b"hello")
    tightened = kept.replace("websocket: true", "websocket: false")
    world.core.service.replace_policy(load_policy(tightened.encode(), "policy.yaml"))
    world.core.connections.review()
    assert await socket.is_cut()
    revoked = [e for e in world.harness.audit() if e["kind"] == "revoked"]
    assert [e["reason"] for e in revoked] == ["egress.upgrade_not_allowed"]
    assert revoked[0]["target"].startswith("ws://")


async def test_silence_ends_a_socket_and_a_frame_now_and_then_keeps_it(tmp_path, monkeypatch):
    idle_s = 401.0
    idle_time_passes = held_deadlines(monkeypatch, idle_s)
    async with open_world(tmp_path, idle_s=idle_s) as world:
        socket = await world.open()
        for count in range(1, 7):
            socket.send(Opcode.PING, b"%d" % count)
            await world.server.wait_for(lambda server, n=count: len(server.of(Opcode.PING)) == n)
            idle_time_passes()
        idle_time_passes()
        assert await socket.is_cut()
        (transfer,) = world.transfers()
        assert transfer["outcome"] == "egress.deadline"
        assert transfer["request_frames"] == 6


async def test_a_close_that_is_never_answered_ends_all_the_same(tmp_path):
    async with open_world(tmp_path, half_open_s=0.1) as world:
        socket = await world.open()
        socket.send(Opcode.CLOSE, CLOSE_1000)
        assert await socket.is_cut()
        await world.server.wait_for(lambda server: bool(server.of(Opcode.CLOSE)))
        (transfer,) = world.transfers()
        assert transfer["outcome"] == "egress.deadline"


async def test_a_socket_has_a_life_that_ends(tmp_path):
    async with open_world(tmp_path, tunnel_s=0.1) as world:
        socket = await world.open()
        assert await socket.is_cut()
        (transfer,) = world.transfers()
        assert transfer["outcome"] == "egress.deadline"


async def test_a_server_that_hangs_up_ends_the_workers_side(world):
    socket = await world.open()
    assert world.server.writer is not None
    world.server.writer.close()
    assert await socket.is_cut()
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "server_closed"


async def test_a_worker_that_hangs_up_ends_the_servers_side(world):
    socket = await world.open()
    socket.send(Opcode.TEXT, b"bye")
    await world.server.wait_for(lambda server: server.got == b"bye")
    socket.writer.close()
    await world.server.has_ended.wait()
    await world.core.connections.wait_until_empty(60)
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "client_closed"


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("hook", ["requestheaders", "request", "responseheaders", "response"])
async def test_a_hook_that_fails_opens_nothing(tmp_path, hook, late):
    decide = getattr(ConnectionGuard, hook)

    async def fail(self: ConnectionGuard, subject: object) -> None:
        if late:
            await decide(self, subject)
        raise RuntimeError("injected")

    guard = type("FaultyGuard", (ConnectionGuard,), {hook: fail})
    async with open_world(tmp_path, guard) as world:
        reply, (reader, writer) = await world.ask(world.head())
        assert reply is None
        writer.write(b"\x81\x82\x00\x00\x00\x00hi")
        assert await read_to_end(reader) == b""
        assert world.server.raw == b""


@pytest.mark.parametrize("part", ["socket_opens", "socket_data", "socket_is_over"])
async def test_a_fault_in_what_carries_a_socket_resets_both_sides(tmp_path, part):
    def fail(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("injected")

    guard = type("FaultyGuard", (ConnectionGuard,), {part: fail})
    async with open_world(tmp_path, guard) as world:
        _, (reader, writer) = await world.ask(world.head())
        writer.write(b"\x81\x82\x00\x00\x00\x00hi")
        assert await read_to_end(reader) == b""
        await world.server.has_ended.wait()
        assert world.reasons()[-1] == "internal"
