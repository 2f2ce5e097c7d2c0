"""What costs most to open has places: handshakes, leaves, and further connections to a server."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mitmproxy.connection import Client

from palyra_egress.proxy.bounds.caps import CAPS
from palyra_egress.proxy.bounds.openings import Openings
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.handler import EnforcingHandler
from palyra_egress.proxy.http.upstream_pool import MAX_IDLE_UPSTREAMS
from tests.egress.proxy.http.h2_world import http2_world
from tests.fakes.proxy_harness import (
    OTHER_LEASE,
    OTHER_SECRET,
    Reply,
    basic,
    proxy_harness,
    read_reply,
)
from tests.fakes.until import until
from tests.fakes.upstream import recording_upstream

POLICY = """\
version: 1
name: openings
rules:
  - {{id: api, hosts: ["*.api.example"], ports: [{port}], private: [127.0.0.0/8]}}
profiles:
  test: [api]
"""
MANY_HOSTS = """\
version: 1
name: many
rules:
  - {{id: any, hosts: ["*.many.example"], schemes: [http], ports: [{port}], private: [127.0.0.0/8]}}
profiles:
  test: [any]
"""
HOSTS = "127.0.0.1 a.api.example b.api.example c.api.example\n"


def shown(reply: Reply | None) -> tuple[int, str | None]:
    assert reply is not None
    return reply.status, None if reply.status == 200 else reply.reason


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
        await until("both openings are taken", lambda: openings.taken == (2, 0))
        again, _, _ = await harness.connect_to("a.api.example:443")
        assert shown(again) == (200, None)
        hangs_up.close()
        await until("both openings are taken", lambda: openings.taken == (2, 0))
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
        await until("no opening is taken", lambda: harness.core.openings.taken == (0, 0))


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
            await until(
                "two connections are being opened",
                lambda: world.harness.core.openings.taken == (0, 2),
            )
            await until("the server has met four", lambda: world.first.connections >= 4)
            go_on.set()
            for worker, stream in streams:
                assert (await worker.answer(stream)).status == 200
            assert world.first.connections == 4  # one for each worker's connection, and two more
        await until("no opening is taken", lambda: world.harness.core.openings.taken == (0, 0))


async def test_a_stream_that_waits_for_a_servers_connection_has_it_as_soon_as_a_place_is_free(
    tmp_path: Path, monkeypatch
):
    """Nothing else happens on its connection that could wake it."""
    monkeypatch.setattr("palyra_egress.proxy.http.http_layer.LOOK_EVERY_S", 3600.0)

    async def silent(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with http2_world(tmp_path, caps=replace(CAPS, further_upstreams=1)) as world:
        world.first.respond = silent
        openings = world.harness.core.openings
        async with world.worker(speaks=1) as waits:
            async with world.worker(speaks=1) as has:
                for _ in range(2):
                    has.ask(has.fields())
                await until("the server has met two", lambda: world.first.connections == 2)
                for _ in range(2):
                    waits.ask(waits.fields())
                await until("one waits", lambda: len(openings._waiting) == 1)
                assert world.first.connections == 3
            await until("the server has met four", lambda: world.first.connections == 4)
            assert openings.taken[1] == 1
        await until("no opening is taken", lambda: openings.taken == (0, 0))
        assert not openings._waiting


async def test_idle_servers_connections_of_an_http1_worker_are_bounded_the_oldest_is_closed(
    tmp_path: Path,
):
    async with many_hosts(tmp_path) as (ask, server, _):
        for number in range(MAX_IDLE_UPSTREAMS):
            await ask(number)
        await ask(0)  # from now on 1 is the least recently used
        assert server.connections == MAX_IDLE_UPSTREAMS
        await ask(MAX_IDLE_UPSTREAMS)
        await until("as many are idle as may be", lambda: server.open_now == MAX_IDLE_UPSTREAMS)
        await ask(0)
        assert server.connections == MAX_IDLE_UPSTREAMS + 1
        await ask(1)
        assert server.connections == MAX_IDLE_UPSTREAMS + 2


async def test_where_no_further_connection_has_a_place_an_http1_worker_keeps_none_idle(
    tmp_path: Path,
):
    async with many_hosts(tmp_path, caps=replace(CAPS, further_upstreams=1)) as (ask, server, core):
        for number in range(5):
            await ask(number)
            await until("the others are closed", lambda: server.open_now <= 2)
        assert server.connections == 5
        assert core.openings.taken[1] <= 1


@asynccontextmanager
async def many_hosts(directory: Path, **settings: Any):
    """One connection of a worker, over which it asks hosts by their number."""
    names = " ".join(f"h{number}.many.example" for number in range(MAX_IDLE_UPSTREAMS + 1))
    async with recording_upstream() as server:
        policy = MANY_HOSTS.format(port=server.port)
        async with proxy_harness(directory, policy, f"127.0.0.1 {names}\n", **settings) as harness:
            reader, writer = await harness.connect()

            async def ask(number: int) -> None:
                authority = f"h{number}.many.example:{server.port}"
                writer.write(
                    f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n"
                    f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
                )
                assert shown(await read_reply(reader)) == (200, None)

            yield ask, server, harness.core


def test_places_that_are_given_back_are_taken_again():
    openings = Openings(replace(CAPS, openings_per_worker=1, further_upstreams=1))
    assert openings.begin("a")
    assert not openings.begin("a")
    assert openings.begin("b")
    openings.end("a")
    assert openings.begin("a")
    assert openings.begin_further("a")
    assert not openings.begin_further("b")
    openings.end_further("a")
    assert openings.begin_further("b")


def test_one_worker_leaves_places_to_the_others_and_waits_for_its_own():
    openings = Openings(replace(CAPS, further_upstreams=3, further_upstreams_per_worker=2))
    told = []
    assert openings.begin_further("a") and openings.begin_further("a")
    assert not openings.begin_further("a", lambda: told.append("a"))
    assert openings.begin_further("b")
    assert not openings.begin_further("b", lambda: told.append("b"))
    openings.end_further("b")  # who waits longest has its share already
    assert told == ["b"]
    openings.end_further("a")
    assert told == ["b", "a"]
    assert openings.taken == (0, 3)
