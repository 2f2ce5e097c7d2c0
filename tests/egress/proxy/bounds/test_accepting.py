"""A storm of connections takes a few places of each pass of the loop, and none where it is over."""

import asyncio
import socket
import struct
from pathlib import Path

from mitmproxy.connection import Client

from palyra_egress.proxy.bounds.accepting import ACCEPTED_AT_ONCE, BACKLOG, with_long_queue
from palyra_egress.proxy.guard.guard import ConnectionGuard
from tests.egress.proxy.channels.channel_world import channel_world, worker_tls
from tests.egress.proxy.lanes import chaos, plain_head
from tests.fakes.proxy_harness import Injection
from tests.fakes.until import until

MANY = 64


def storm(address: tuple[str, int], count: int = MANY) -> list[socket.socket]:
    """Connections that the kernel has taken, and nobody else yet: the loop stands still."""
    return [socket.create_connection(address, timeout=60) for _ in range(count)]


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def test_a_pass_takes_a_few_connections_and_the_others_wait_without_being_refused():
    accepted, by_pass = 0, list[int]()

    async def carry(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.close()

    started = await asyncio.start_server(carry, "127.0.0.1", 0, backlog=ACCEPTED_AT_ONCE)
    async with with_long_queue(started) as server:
        connections = storm(server.sockets[0].getsockname())
        async with asyncio.timeout(60):
            while accepted < MANY:
                before = accepted
                await asyncio.sleep(0)
                by_pass.append(accepted - before)
        for connection in connections:
            connection.close()
    assert MANY < BACKLOG
    assert max(by_pass) <= ACCEPTED_AT_ONCE + 1


async def test_the_tls_listener_takes_as_few_in_a_pass(tmp_path: Path):
    by_pass = list[int]()
    async with channel_world(tmp_path, worker_tls(tmp_path)) as world:
        channels = world.harness.proxy.channels
        assert channels.worker_tls_address is not None and channels.worker_tls is not None
        connections = storm(channels.worker_tls_address)
        async with asyncio.timeout(60):
            while (before := channels.worker_tls.handshakes) < MANY:
                await asyncio.sleep(0)
                by_pass.append(channels.worker_tls.handshakes - before)
        for connection in connections:
            reset(connection)
        await until("all are gone", lambda: not channels.worker_tls.handshakes)
    assert max(by_pass) <= ACCEPTED_AT_ONCE + 1


class Counting(ConnectionGuard):
    """Counts the connections that got as far as a guard."""

    connected = 0

    async def client_connected(self, client: Client) -> None:
        Counting.connected += 1
        await super().client_connected(client)


async def test_a_connection_that_was_reset_before_it_was_looked_at_costs_no_guard(tmp_path: Path):
    Counting.connected = 0
    async with chaos(tmp_path, Injection(guard_class=Counting)) as world:
        for connection in storm(world.harness.proxy.address):
            reset(connection)
        reply = await world.harness.send(plain_head(world, "GET"))
        assert reply is not None and reply.status == 200
        assert Counting.connected == 1
        assert [entry["reason"] for entry in world.harness.verdicts()] == ["egress.allowed"]
