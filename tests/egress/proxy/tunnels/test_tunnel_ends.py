"""What ends a tunnel that is passed on: budgets, silence, its worker's and its policy's changes."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.egress.proxy.tunnels.tunnel_world import HELLO, World, open_world
from tests.fakes.client_hello import (
    APPLICATION,
    SERVER_HELLO,
    hello,
)
from tests.fakes.proxy_harness import (
    LEASE,
    WORKER,
    read_to_end,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


# --- what ends one --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 20]
)
async def test_a_server_that_does_not_speak_tls_reaches_no_worker(tmp_path, answer):
    async with open_world(tmp_path) as world:
        world.raw.answer = answer
        reader, writer = await world.open()
        writer.write(HELLO)
        assert await read_to_end(reader) == b""
        await world.harness.core.connections.wait_until_empty(60)
        assert world.outcomes() == ["egress.upstream_protocol"]


async def test_garbage_after_the_hello_reaches_no_server(world):
    reader, writer = await world.established()
    writer.write(b"plain text that was not asked for")
    assert await read_to_end(reader) == b""
    async with asyncio.timeout(60):
        await world.raw.was_reset.wait()
    assert bytes(world.raw.received) == HELLO
    assert world.reasons() == ["allowed", "non_http_in_tunnel"]


async def test_the_bytes_of_one_tunnel_have_budgets_each_way(world):
    sent = hello(b"small.example")
    reader, writer = await world.open("small.example")
    writer.write(sent)
    assert await reader.readexactly(len(SERVER_HELLO)) == SERVER_HELLO
    writer.write(APPLICATION * 20)
    assert await read_to_end(reader) == b""
    assert bytes(world.raw.received) == sent, "the chunk that crosses the budget stays here"

    reader, writer = await world.open("small.example")
    writer.write(sent)
    assert await reader.readexactly(len(SERVER_HELLO)) == SERVER_HELLO
    world.raw.writer.write(APPLICATION * 20)
    assert await read_to_end(reader) == b""
    assert world.outcomes() == ["egress.request_too_large", "egress.response_too_large"]


async def test_the_hour_of_a_rule_holds_over_all_its_tunnels_and_connects_have_a_rate(world):
    sent = hello(b"hourly.example")
    for last in (False, True):
        reader, writer = await world.open("hourly.example")
        writer.write(sent)
        assert await reader.readexactly(len(SERVER_HELLO)) == SERVER_HELLO
        writer.write(APPLICATION * (10 if last else 4))
        if last:
            assert await read_to_end(reader) == b""
    assert world.outcomes() == ["egress.budget_spent"]
    reply, _, _ = await world.harness.connect_to(f"hourly.example:{world.raw.port}")
    assert reply is not None and reply.reason in ("egress.budget_spent", "egress.rate_limited")


async def test_silence_ends_a_tunnel(tmp_path):
    async with open_world(tmp_path, idle_s=0.1) as world:
        reader, _ = await world.established()
        assert await read_to_end(reader) == b""
        assert world.outcomes() == ["egress.deadline"]


async def test_a_half_open_tunnel_is_not_kept_for_long(tmp_path):
    async with open_world(tmp_path, half_open_s=0.1) as world:
        reader, writer = await world.established()
        writer.write_eof()
        assert await read_to_end(reader) == b""
        assert world.outcomes() == ["egress.deadline"]


async def test_no_tunnel_lives_for_ever(tmp_path):
    async with open_world(tmp_path, tunnel_s=0.1) as world:
        reader, _ = await world.established()
        assert await read_to_end(reader) == b""
        assert world.outcomes() == ["egress.deadline"]


async def test_a_server_that_resets_resets_the_worker(world):
    reader, _ = await world.established()
    world.raw.writer.transport.abort()
    assert await read_to_end(reader) == b""
    await world.harness.core.connections.wait_until_empty(60)


async def _streams_until_cut(world: World, happens: Any) -> None:
    """Bytes flow both ways without end until something happens; then none flows any more."""
    reader, writer = await world.established()
    server = world.raw.writer

    async def pour(into: asyncio.StreamWriter) -> None:
        with pytest.raises(OSError):
            while True:
                into.write(APPLICATION * 100)
                await into.drain()

    async def drink() -> None:
        while await reader.read(1 << 16):
            pass

    async def change() -> None:
        before = len(world.raw.received)
        async with asyncio.timeout(60), world.raw.arrived:
            await world.raw.arrived.wait_for(lambda: len(world.raw.received) > before + 100_000)
        happens()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(pour(writer))
        group.create_task(pour(server))
        group.create_task(_suppressed(drink()))
        group.create_task(change())
    async with asyncio.timeout(60):
        await world.raw.was_reset.wait()
    await world.harness.core.connections.wait_until_empty(60)
    assert len(world.harness.core.connections) == 0


async def _suppressed(work: Any) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        await work


def _rewrite(world: World, old: str, new: str) -> None:
    text = world.policy_file.read_text()
    assert old in text
    world.policy_file.write_text(text.replace(old, new))


ENDS = {
    "the worker is quarantined": (
        lambda world: world.harness.tell("block", worker_id=WORKER),
        "egress.no_lease",
        None,
    ),
    "the lease ends": (
        lambda world: world.harness.tell("unbind", lease_id=LEASE),
        "egress.no_lease",
        None,
    ),
    "the rule is taken away": (
        lambda world: _rewrite(world, "hosts: [t.example]", "hosts: [u.example]"),
        "egress.host_not_allowed",
        "egress.host_not_allowed",
    ),
    "a deny rule comes": (
        lambda world: _rewrite(
            world, "violations:", "deny: [{id: never, hosts: [t.example]}]\nviolations:"
        ),
        "egress.host_denied",
        "egress.host_denied",
    ),
    "the addresses are not allowed any more": (
        lambda world: _rewrite(world, "9], private: [127.0.0.0/8]", "9], private: [10.0.0.0/8]"),
        "egress.private_target",
        "egress.private_target",
    ),
    "the rule inspects now": (
        lambda world: _rewrite(world, "{id: plainly,", "{id: plainly, tls: inspect,"),
        "egress.policy_changed",
        "egress.policy_changed",
    ),
    "the rule has ended": (
        lambda world: _rewrite(
            world, "{id: plainly,", "{id: plainly, until: 2020-01-01T00:00:00Z,"
        ),
        "egress.rule_expired",
        "egress.rule_expired",
    ),
    "the policy is gone": (
        lambda world: world.harness.core.service.replace_policy(None),
        "egress.policy_not_loaded",
        "egress.policy_not_loaded",
    ),
    "the view is stale": (
        # later, so that the proxy has looked at a fresh view at least once
        lambda world: asyncio.get_running_loop().call_later(
            0.2, setattr, world.harness.core.view, "max_age_ms", -1
        ),
        "fleet.view_stale",
        None,
    ),
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_open_tunnel_is_cut_while_it_streams_when(world, end):
    happens, outcome, revoked = ENDS[end]
    await _streams_until_cut(world, lambda: happens(world))
    assert world.outcomes() == [outcome]
    assert world.revoked() == ([] if revoked is None else [revoked])
    assert world.reasons() == ["allowed"], "the worker did nothing: no verdict, no consequence"
    assert not world.harness.core.view._blocked_here


async def test_a_tunnel_ends_at_the_moment_its_rule_ends(tmp_path):
    async with open_world(tmp_path) as world:
        reader, _ = await world.established()
        policy = world.harness.core.service.policy
        (rule,) = [rule for rule in policy.rules.values() if rule.rule_id == "plainly"]
        # the running policy as it would be if its rule had an end one day from now
        clocks = world.harness.core.clocks
        end = clocks.now_unix_ms() + 86_400_000
        rule.until_unix_ms, policy.ends_unix_ms = end, (end,)
        object.__setattr__(clocks, "now_unix_ms", lambda: end)
        assert await read_to_end(reader) == b""
        await world.harness.core.connections.wait_until_empty(60)
        assert world.revoked() == ["egress.rule_expired"]


async def test_a_new_policy_that_still_allows_a_tunnel_leaves_it_open_under_its_limits(world):
    reader, writer = await world.established()
    (connection,) = world.harness.core.connections._all
    reviewed = asyncio.Event()
    review = connection.guard.review

    def and_tell() -> None:
        review()
        reviewed.set()

    connection.guard.review = and_tell
    _rewrite(world, "{id: plainly,", "{id: plainly, limits: {max_response_bytes: 1KiB},")
    async with asyncio.timeout(60):
        await reviewed.wait()
    writer.write(APPLICATION)
    await world.raw.wait_for(HELLO + APPLICATION)
    world.raw.writer.write(APPLICATION * 20)
    assert await read_to_end(reader) == b""
    assert world.outcomes() == ["egress.response_too_large"]


@pytest.mark.parametrize("change", ["hosts: [seen.example]", "tls: inspect\n    missing_sni: true"])
async def test_an_inspected_tunnel_and_what_runs_in_it_are_judged_again_too(world, change):
    target = f"seen.example:{world.secure.port}"
    started = asyncio.Event()

    async def never_ends(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nfirst")
        started.set()

    world.secure.respond = never_ends
    _, reader, writer = await world.harness.tunnel(target)
    writer.write(f"GET / HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    await reader.readuntil(b"first")
    _rewrite(world, change, change.replace("seen", "unseen").replace("inspect", "tunnel"))
    assert await read_to_end(reader) == b""
    await world.secure.wait_until_closed()
    assert len(world.revoked()) == 1


async def test_a_request_in_flight_is_judged_again(world):
    target = f"seen.example:{world.secure.port}"
    world.secure.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nfirst"
    _, reader, writer = await world.harness.tunnel(target)
    writer.write(f"GET /now HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    await reader.readuntil(b"first")
    _rewrite(world, "tls: inspect\n", "tls: inspect\n    paths: [/later]\n")
    assert await read_to_end(reader) == b""
    assert world.revoked() == ["egress.path_not_allowed"]
    assert world.outcomes() == ["egress.path_not_allowed"]
