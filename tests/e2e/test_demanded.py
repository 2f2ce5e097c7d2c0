"""New keys on demand over real processes: who obeys works on, who does not is cut in time."""

import asyncio
import contextlib
import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.e2e.apart import Apart
from tests.e2e.place import Puppet, ask_proxy, labelled, proxy_authorization
from tests.e2e.upstreams import API
from tests.fakes.proxy_harness import read_reply
from tests.fakes.until import until


@dataclass(slots=True)
class Tunnel:
    """One CONNECT, with TLS in it, that stays open: requests go over it one after the other."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    authority: str

    async def get(self) -> int | None:
        """The status of one more request; None where the tunnel was cut."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.writer.write(
                f"GET /open/thing HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode()
            )
            reply = await read_reply(self.reader)
            return None if reply is None else reply.status
        return None


@asynccontextmanager
async def tunnel(apart: Apart, puppet: Puppet) -> AsyncIterator[Tunnel]:
    """With the credential of the puppet's lease, as any of its programs would."""
    target, proxy = urlsplit(apart.place.upstreams.url(API, "/open/thing")), apart.proxy_url
    address = urlsplit(proxy)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        credential = proxy_authorization(puppet.proxy_url)
        writer.write(
            f"CONNECT {target.netloc} HTTP/1.1\r\nHost: {target.netloc}\r\n"
            f"Proxy-Authorization: {credential}\r\n\r\n".encode()
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        trust = ssl.create_default_context(cafile=labelled(apart.proxy, "worker CA"))
        await writer.start_tls(trust, server_hostname=target.hostname)
        yield Tunnel(reader, writer, target.netloc)
    finally:
        writer.transport.abort()


async def demanded(apart: Apart, worker_id: str, *options: str) -> None:
    shown = await apart.command(
        *("worker", "reattest", worker_id, "--reason", "the key was seen", *options),
        *("-o", "json"),
    )
    asked = json.loads(shown)["demanded"]
    assert (asked["asked_by"], asked["why"]) == ("operator", "the key was seen")


async def test_a_worker_makes_a_new_key_and_its_open_tunnel_lives_on(apart: Apart) -> None:
    place, puppet = apart.place, await apart.puppet("run-1")
    async with tunnel(apart, puppet) as open_tunnel:
        assert await open_tunnel.get() == 200
        (before,) = await place.workers()
        await demanded(apart, before.worker_id, "--new-key")

        async def has_a_new_key() -> bool:
            (worker,) = await place.workers()
            return worker.demanded is None and worker.key_sha256 != before.key_sha256

        await until("the worker has a new key", has_a_new_key)
        assert await open_tunnel.get() == 200, "the same connection"
        assert (await puppet.get(place.upstreams.url(API, "/open/thing")))["status"] == 200
        (after,) = await place.workers()
        assert (after.lease_id, after.fence) == (before.lease_id, before.fence)
    (event,) = await place.events("worker.reattested")
    assert event.detail["retired_key_sha256"] == before.key_sha256
    assert await puppet.exit(3) == 3
    assert [one.lease_id for one in await place.events("worker.completed")] == [before.lease_id]
    await apart.command("event", "verify")


async def test_a_demand_outlives_the_fleet_and_is_met_once_it_is_back(apart: Apart) -> None:
    place, puppet = apart.place, await apart.puppet("run-1")
    (before,) = await place.workers()
    puppet.program.signal(signal.SIGSTOP)
    try:
        await demanded(apart, before.worker_id, "--new-key")
        await apart.fleet.kill()
        await apart.restart_fleet()
        (worker,) = await place.workers()
        assert worker.demanded is not None and worker.demanded.new_key
    finally:
        puppet.program.signal(signal.SIGCONT)

    async def has_a_new_key() -> bool:
        (worker,) = await place.workers()
        return worker.demanded is None and worker.key_sha256 != before.key_sha256

    await until("the worker has a new key", has_a_new_key)

    async def is_served() -> bool:
        return bool((await puppet.get(place.upstreams.url(API, "/open/x")))["status"] == 200)

    await until("service resumes", is_served)
    assert await puppet.exit(0) == 0
    await apart.command("event", "verify")


@pytest.mark.parametrize("options", [(), ("--new-key",)], ids=["evidence", "key"])
async def test_a_worker_that_does_not_obey_is_cut_at_the_deadline(
    apart: Apart, options: tuple[str, ...]
) -> None:
    place, puppet = apart.place, await apart.puppet("run-1")
    async with tunnel(apart, puppet) as open_tunnel:
        assert await open_tunnel.get() == 200
        (before,) = await place.workers()
        puppet.program.signal(signal.SIGSTOP)  # its agent; the program runs on
        try:
            await demanded(apart, before.worker_id, "--within-s", "3", *options)

            async def is_cut() -> bool:
                return await open_tunnel.get() is None

            await until("the tunnel is cut", is_cut)
            url = place.upstreams.url(API, "/open/thing")
            reply = await ask_proxy(apart.proxy_url, url, puppet.proxy_url)
            assert reply is not None and reply.reason == "egress.no_lease"

            async def has_no_lease() -> bool:
                (worker,) = await place.workers()
                return (worker.lease_id, worker.work) == (None, "orphaned")

            await until("the fleet has ended the lease", has_no_lease)
            (worker,) = await place.workers()
            assert worker.demanded is not None
            (event,) = await place.events("worker.lease_revoked")
            why = "the evidence that was demanded was not shown in time"
            assert (event.lease_id, event.detail["why"]) == (before.lease_id, why)
        finally:
            puppet.program.signal(signal.SIGCONT)
    assert await puppet.program.ended() == 128 + signal.SIGTERM
    await until("the program is gone", lambda: not puppet.is_alive())
