"""What costs most to open has places: handshakes, leaves, and further connections to a server."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mitmproxy.connection import Client

from palyra_egress.proxy.caps import CAPS
from palyra_egress.proxy.guard import ConnectionGuard
from palyra_egress.proxy.handler import EnforcingHandler
from palyra_egress.proxy.openings import Openings
from tests.egress.proxy.h2_world import http2_world
from tests.fakes.proxy_harness import OTHER_LEASE, OTHER_SECRET, Reply, basic, proxy_harness

POLICY = """\
version: 1
name: openings
rules:
  - {{id: api, hosts: ["*.api.example"], ports: [{port}], private: [127.0.0.0/8]}}
profiles:
  test: [api]
"""
HOSTS = "127.0.0.1 a.api.example b.api.example c.api.example\n"


def shown(reply: Reply | None) -> tuple[int, str | None]:
    assert reply is not None
    return reply.status, None if reply.status == 200 else reply.reason


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (the proxy's own count, which tells nobody)
            await asyncio.sleep(0)


async def test_one_worker_has_so_many_places_for_handshakes(tmp_path: Path):
    caps = replace(CAPS, openings_per_worker=2)
    async with proxy_harness(tmp_path, POLICY.format(port=443), HOSTS, caps=caps) as harness:
        openings = harness.core.openings
        full = (503, "egress.too_many_connections")
        first, _, writer = await harness.connect_to("a.api.example:443")
        second, _, hangs_up = await harness.connect_to("a.api.example:443")
        third, _, _ = await harness.connect_to("a.api.example:443")
        assert [shown(first), shown(second), shown(third)] == [(200, None), (200, None), full]
        assert harness.verdicts()[-1]["reason"] == "egress.too_many_connections"
        other = basic(OTHER_LEASE, OTHER_SECRET)
        theirs, _, _ = await harness.connect_to("a.api.example:443", credentials=other)
        assert shown(theirs) == (200, None)

        await harness.shake_hands(writer, "a.api.example")  # its place is free
        await until(lambda: openings.taken == (2, 0))
        again, _, _ = await harness.connect_to("a.api.example:443")
        assert shown(again) == (200, None)
        hangs_up.close()
        await until(lambda: openings.taken == (2, 0))
        again, _, _ = await harness.connect_to("a.api.example:443")
        assert shown(again) == (200, None)
    assert openings.taken == (0, 0)


async def test_a_connect_that_is_refused_keeps_no_place(tmp_path: Path):
    caps = replace(CAPS, openings_per_worker=1)
    async with proxy_harness(tmp_path, POLICY.format(port=443), HOSTS, caps=caps) as harness:
        for _ in range(3):
            reply, _, _ = await harness.connect_to("nobody.example:443")
            assert shown(reply) == (403, "egress.host_not_allowed")
        assert harness.core.openings.taken == (0, 0)


async def test_a_connection_whose_last_hook_fails_gives_its_place_back(tmp_path: Path):
    class Faulty(ConnectionGuard):
        async def client_disconnected(self, _client: Client) -> None:
            raise RuntimeError("injected")

    def make_guard(handler: EnforcingHandler) -> ConnectionGuard:
        return Faulty(harness.proxy.enforcement.parts, handler)

    policy = POLICY.format(port=443)
    async with proxy_harness(tmp_path, policy, HOSTS, make_guard=make_guard) as harness:
        reply, _, writer = await harness.connect_to("a.api.example:443")
        assert shown(reply) == (200, None)
        assert harness.core.openings.taken == (1, 0)
        writer.close()
        await until(lambda: harness.core.openings.taken == (0, 0))


async def test_one_worker_has_so_many_new_leaves_a_minute(tmp_path: Path):
    caps = replace(CAPS, new_leaves_per_minute=1)
    async with proxy_harness(tmp_path, POLICY.format(port=443), HOSTS, caps=caps) as harness:
        reply, _, _ = await harness.tunnel("a.api.example:443")
        assert shown(reply) == (200, None)
        reply, _, _ = await harness.connect_to("b.api.example:443")
        assert shown(reply) == (429, "egress.rate_limited")
        reply, _, _ = await harness.tunnel("a.api.example:443")  # its leaf is there
        assert shown(reply) == (200, None)
        other = basic(OTHER_LEASE, OTHER_SECRET)
        reply, _, _ = await harness.connect_to("c.api.example:443", credentials=other)
        assert shown(reply) == (200, None)


async def test_servers_connections_behind_streams_are_bounded_in_all_and_every_stream_is_answered(
    tmp_path: Path,
):
    go_on = asyncio.Event()

    async def answer_late(_head: bytes, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with http2_world(tmp_path, caps=replace(CAPS, further_upstreams=2)) as world:
        world.first.respond = answer_late
        async with world.worker(speaks=1) as one, world.worker(speaks=1) as other:
            streams = [
                (worker, worker.ask(worker.fields())) for worker in (one, other) for _ in range(4)
            ]
            await until(lambda: world.harness.core.openings.taken == (0, 2))
            await until(lambda: world.first.connections >= 4)
            go_on.set()
            for worker, stream in streams:
                assert (await worker.answer(stream)).status == 200
            assert world.first.connections == 4  # one for each worker's connection, and two more
        await until(lambda: world.harness.core.openings.taken == (0, 0))


def test_places_that_are_given_back_are_taken_again():
    openings = Openings(replace(CAPS, openings_per_worker=1, further_upstreams=1))
    assert openings.begin("a")
    assert not openings.begin("a")
    assert openings.begin("b")
    openings.end("a")
    assert openings.begin("a")
    assert openings.begin_further()
    assert not openings.begin_further()
    openings.end_further()
    assert openings.begin_further()
