"""Whatever ends a connection, at whatever stage: every place that it took is given back, and each
allowed exchange has one end in the audit log."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from palyra_egress.proxy.bounds.caps import CAPS
from tests.egress.proxy.lanes import Chaos, chaos, inner_head, plain_head
from tests.fakes.client_hello import hello
from tests.fakes.h2_worker import h2_worker
from tests.fakes.proxy_harness import LEASE, WORKER
from tests.fakes.until import until

UPLOAD = "Content-Length: 100\r\n"
type Stage = Callable[[Chaos], Awaitable[asyncio.StreamWriter]]


async def _half_an_answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def _no_answer(_head: bytes, _writer: asyncio.StreamWriter) -> None:
    """It has the request, and says nothing."""


async def _until_asked(world: Chaos, heads: int = 1) -> None:
    await until(
        "the servers were asked",
        lambda: sum(len(one.heads) for one in world.upstreams) >= heads,
    )


async def silent(world: Chaos) -> asyncio.StreamWriter:
    return (await world.harness.connect())[1]


async def half_a_head(world: Chaos) -> asyncio.StreamWriter:
    _, writer = await world.harness.connect()
    writer.write(plain_head(world, "GET")[:40])
    return writer


async def open_tunnel(world: Chaos) -> asyncio.StreamWriter:
    return (await world.harness.connect_to(f"api.example:{world.secure.port}"))[2]


async def half_a_hello(world: Chaos) -> asyncio.StreamWriter:
    after = hello(b"tunnel.example")[:40]
    target = f"tunnel.example:{world.secure.port}"
    return (await world.harness.connect_to(target, after=after))[2]


async def passed_on(world: Chaos) -> asyncio.StreamWriter:
    target = f"tunnel.example:{world.secure.port}"
    return (await world.harness.tunnel(target, roots=world.roots))[2]


async def unanswered(world: Chaos) -> asyncio.StreamWriter:
    world.secure.respond = _no_answer
    authority = f"api.example:{world.secure.port}"
    _, _, writer = await world.harness.tunnel(authority)
    writer.write(inner_head(authority, "GET"))
    await _until_asked(world)
    return writer


async def half_answered(world: Chaos) -> asyncio.StreamWriter:
    world.plain.respond = _half_an_answer
    reader, writer = await world.harness.connect()
    writer.write(plain_head(world, "GET"))
    await reader.readuntil(b"half")
    return writer


async def half_uploaded(world: Chaos) -> asyncio.StreamWriter:
    world.plain.respond = _no_answer
    _, writer = await world.harness.connect()
    writer.write(plain_head(world, "POST", UPLOAD) + b"half")
    await _until_asked(world)
    return writer


STAGES: tuple[Stage, ...] = (
    silent,
    half_a_head,
    open_tunnel,
    half_a_hello,
    passed_on,
    unanswered,
    half_answered,
    half_uploaded,
)


def hangs_up(_world: Chaos, writer: asyncio.StreamWriter) -> None:
    writer.close()


def resets(_world: Chaos, writer: asyncio.StreamWriter) -> None:
    own = writer.get_extra_info("socket")
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def loses_its_lease(world: Chaos, writer: asyncio.StreamWriter) -> None:
    world.harness.tell("unbind", lease_id=LEASE)
    writer.close()


def is_blocked(world: Chaos, writer: asyncio.StreamWriter) -> None:
    world.harness.tell("block", worker_id=WORKER)
    writer.close()


ENDS = (hangs_up, resets, loses_its_lease, is_blocked)


def _held(core: Any) -> dict[str, Any]:
    connections, openings = core.connections, core.openings
    return {
        "connections": len(connections),
        "of workers": connections.by_worker(),
        "strangers": len(connections._strangers),
        "openings, further": openings.taken,
        "waiting": len(openings._waiting),
        "shares": len(core.shares),
    }


NOTHING = {
    "connections": 0,
    "of workers": {},
    "strangers": 0,
    "openings, further": (0, 0),
    "waiting": 0,
    "shares": 0,
}


async def _nothing_is_held(world: Chaos) -> None:
    await until("everything was given back", lambda: _held(world.core) == NOTHING)


def _each_exchange_ended_once(world: Chaos) -> None:
    entries = world.harness.audit()
    ends = Counter(one["decision_id"] for one in entries if one["kind"] == "transfer")
    granted = [
        one["decision_id"]
        for one in entries
        if one["kind"] == "verdict"
        and one["effect"] == "allow"
        and (one["method"] != "CONNECT" or one["host"] == "tunnel.example")
    ]
    assert ends == Counter(granted)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_every_end_at_every_stage_gives_all_back_and_is_told_once(tmp_path, end):
    for number, stage in enumerate(STAGES):
        async with chaos(tmp_path / str(number)) as world:
            end(world, await stage(world))
            await _nothing_is_held(world)
            _each_exchange_ended_once(world)
            assert not [one for one in world.harness.verdicts() if one.get("early")], stage


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_streams_that_wait_for_a_place_leave_none_taken(tmp_path, end):
    """Three streams have a server's connection, three wait for one."""
    caps = replace(CAPS, further_upstreams_per_worker=2)
    async with chaos(tmp_path, caps=caps) as world:
        world.secure.respond = _no_answer
        async with h2_worker(world.harness, f"api.example:{world.secure.port}") as worker:
            for _ in range(6):
                worker.ask(worker.fields("GET"))
            await _until_asked(world, 3)
            assert world.core.openings.taken == (0, 2)
            end(world, worker.writer)
            await _nothing_is_held(world)
        _each_exchange_ended_once(world)
