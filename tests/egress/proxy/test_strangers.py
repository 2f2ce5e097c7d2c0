"""Clients that show no lease: answered and audited up to a rate, beyond it only cut off."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_egress.proxy import core
from palyra_egress.proxy.bounds.caps import CAPS
from palyra_egress.proxy.bounds.sources import source_of
from tests.egress.proxy.http.hurried import Hurry
from tests.egress.proxy.lanes import chaos, plain_head
from tests.fakes.proxy_harness import Reply, read_reply, read_to_end

RATE = 3


def without_credentials(raw: bytes) -> bytes:
    lines = raw.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"proxy-auth"))


async def test_a_flood_of_strangers_writes_a_bounded_log_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(core, "STRANGERS_PER_MINUTE", RATE)
    async with chaos(tmp_path) as world:
        Hurry(world.harness)  # no time passes, in which there would be room again
        stranger = without_credentials(plain_head(world, "GET"))
        replies: list[Reply | None] = [await world.harness.send(stranger) for _ in range(10)]
        assert [reply.status for reply in replies if reply is not None] == [407] * RATE
        world.core.audit_unanswered()
        kinds = [entry["kind"] for entry in world.harness.audit()]
        assert kinds.count("verdict") == RATE
        counted = [e["connections"] for e in world.harness.audit() if e["kind"] == "unanswered"]
        assert sum(counted) == 10 - RATE
        world.nothing_was_dialled()


async def test_a_malformed_head_of_a_stranger_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(core, "STRANGERS_PER_MINUTE", 1)
    async with chaos(tmp_path) as world:
        first = await world.harness.send(b"GET nonsense\r\n\r\n")
        assert first is not None and first.status == 400
        assert await world.harness.send(b"GET nonsense\r\n\r\n") is None


async def test_strangers_that_speak_no_http_count_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(core, "STRANGERS_PER_MINUTE", RATE)
    async with chaos(tmp_path) as world:
        Hurry(world.harness)  # no time passes, in which there would be room again
        for _ in range(10):
            assert await world.harness.send(b"\x16\x03\x01 no TLS is spoken to the proxy") is None
        kinds = [entry["kind"] for entry in world.harness.audit()]
        assert kinds.count("verdict") == RATE


async def test_a_flood_of_strangers_takes_nothing_from_who_holds_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(core, "STRANGERS_PER_MINUTE", 1)
    async with chaos(tmp_path) as world:
        known = plain_head(world, "GET")
        for _ in range(3):
            await world.harness.send(without_credentials(known))
        reply = await world.harness.send(known)
        assert reply is not None and reply.status == 200


async def test_one_source_of_strangers_does_not_hide_the_refusals_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(core, "STRANGERS_PER_SOURCE", RATE)
    monkeypatch.setattr(core, "STRANGERS_PER_MINUTE", RATE + 1)
    async with chaos(tmp_path) as world:
        Hurry(world.harness)  # no time passes, in which there would be room again
        stranger = without_credentials(plain_head(world, "GET"))
        for _ in range(10):
            await world.harness.send(stranger)
        reader, writer = await asyncio.open_connection(
            *world.harness.proxy.address, local_addr=("127.0.0.2", 0)
        )
        world.harness.streams.append(writer)
        writer.write(stranger)
        reply = await read_reply(reader)
        assert reply is not None and reply.status == 407
        kinds = [entry["kind"] for entry in world.harness.audit()]
        assert kinds.count("verdict") == RATE + 1


async def test_silent_connections_take_no_place_from_who_holds_a_lease(tmp_path: Path):
    caps = replace(CAPS, connections=8)
    async with chaos(tmp_path, caps=caps) as world:
        streams = [await world.harness.connect() for _ in range(20)]
        async with asyncio.timeout(60):
            cut = [await read_to_end(reader) for reader, _ in streams[:12]]
        reply = await world.harness.send(plain_head(world, "GET"))
        assert reply is not None and reply.status == 200
        assert cut == [b""] * 12
        reasons = {entry["reason"] for entry in world.harness.verdicts() if entry.get("early")}
        assert reasons == {"egress.too_many_connections"}


@pytest.mark.parametrize(
    ("peername", "source"),
    [
        (("192.0.2.1", 4711), "192.0.2.1"),
        (("::ffff:192.0.2.1", 4711, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 4711, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
        ("", "local"),
        (None, "local"),
    ],
)
def test_a_source_is_an_address_or_a_subnet(peername, source):
    assert source_of(peername) == source
