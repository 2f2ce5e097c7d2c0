"""A quarantine outlives SIGKILL of everything, at whatever moment the kill comes.

Each round: a real worker, a metadata request with its lease's credential, SIGKILL, a restart on the
same home. Afterwards the worker is still quarantined, its lease is dead, both logs are whole, and
the fleet holds the evidence exactly once.
"""

import asyncio
import signal
from typing import Final

import pytest

from tests.e2e.apart import Apart
from tests.e2e.place import METADATA_URL, Place, Puppet, Running, ask_proxy
from tests.e2e.upstreams import API
from tests.fakes.proxy_harness import Reply
from tests.fakes.until import until

DEAD: Final = {"egress.no_lease", "egress.quarantined"}
pytestmark = pytest.mark.crash


async def violate(proxy: str, puppet: Puppet) -> Reply:
    reply = await ask_proxy(proxy, METADATA_URL, puppet.proxy_url)
    assert reply is not None and (reply.status, reply.reason) == (403, "egress.metadata_target")
    return reply


async def is_quarantined(place: Place) -> bool:
    (worker,) = await place.workers()
    return worker.admission == "quarantined"


async def assert_the_quarantine_holds(place: Place, proxy: str, puppet: Puppet) -> None:
    """Once the fleet has all evidence: what must be true after any crash."""
    await until("the worker is quarantined", lambda: is_quarantined(place))
    (worker,) = await place.workers()
    assert worker.lease_id is None
    assert worker.quarantine_reason == "egress.metadata_target"
    await assert_refused(place, proxy, puppet)
    assert len(await place.violations()) == 1
    assert len(await place.events("worker.quarantined_by_egress")) == 1
    assert place.upstreams.seen == []


async def assert_refused(place: Place, proxy: str, puppet: Puppet) -> None:
    url = place.upstreams.url(API, "/open/thing")
    reply = await ask_proxy(proxy, url, puppet.proxy_url)
    assert reply is not None and reply.status == 403 and reply.reason in DEAD


async def assert_both_logs_are_whole(place: Place) -> None:
    audit, events = await asyncio.gather(
        place.egress("audit", "verify", place.audit_file), place.fleet("event", "verify")
    )
    assert (audit.code, events.code) == (0, 0), audit.said + events.said
    violations = [e for e in place.audit() if e.get("reason") == "egress.metadata_target"]
    assert len(violations) == 1


async def restarted(place: Place, running: Running, puppet: Puppet) -> Running:
    """Kill everything of the installation now, and start it again on the same home."""
    await running.program.kill()
    again = await place.up()
    await assert_refused(place, again.proxy, puppet)  # from the first moment on
    return again


@pytest.mark.parametrize("round_number", range(3))
async def test_killed_as_soon_as_the_worker_has_its_403(place: Place, round_number: int) -> None:
    running = await place.up()
    puppet = await place.puppet("api")
    await violate(running.proxy, puppet)
    again = await restarted(place, running, puppet)
    await assert_the_quarantine_holds(place, again.proxy, puppet)
    await assert_both_logs_are_whole(place)


@pytest.mark.parametrize("round_number", range(2))
async def test_killed_after_the_fleet_has_written_the_event(
    place: Place, round_number: int
) -> None:
    running = await place.up()
    puppet = await place.puppet("api")
    await violate(running.proxy, puppet)
    await until("the event", lambda: place.events("worker.quarantined_by_egress"))
    again = await restarted(place, running, puppet)
    await assert_the_quarantine_holds(place, again.proxy, puppet)
    await assert_both_logs_are_whole(place)


async def test_killed_twice_and_stopped_once_the_quarantine_still_holds(place: Place) -> None:
    running = await place.up()
    puppet = await place.puppet("api")
    await violate(running.proxy, puppet)
    for _ in range(2):
        running = await restarted(place, running, puppet)
    running.program.signal(signal.SIGTERM)
    assert await running.program.ended() == 0
    running = await place.up()
    await assert_the_quarantine_holds(place, running.proxy, puppet)
    await assert_both_logs_are_whole(place)


async def test_the_runtime_of_a_worker_that_lived_through_the_crash_ends_the_program(
    place: Place,
) -> None:
    running = await place.up()
    puppet = await place.puppet("api")
    await violate(running.proxy, puppet)
    await restarted(place, running, puppet)
    assert await puppet.program.ended() == 128 + signal.SIGTERM
    assert not puppet.is_alive()
    assert "this worker was quarantined" in puppet.program.err.text


async def test_evidence_that_only_the_spool_holds_reaches_the_fleet_after_both_were_killed(
    apart: Apart,
) -> None:
    """The fleet is frozen while the violation happens, so it cannot have heard of it."""
    place = apart.place
    puppet = await apart.puppet("run-1")
    apart.fleet.signal(signal.SIGSTOP)
    await violate(apart.proxy_url, puppet)
    await apart.proxy.kill()
    await apart.fleet.kill()
    await apart.restart_fleet()
    assert not await is_quarantined(place)
    await apart.restart_proxy()
    await until("the worker is quarantined", lambda: is_quarantined(place))
    await until("the proxy has a fresh view", apart.has_heard)
    await assert_the_quarantine_holds(place, apart.proxy_url, puppet)
    await apart.command("event", "verify")
