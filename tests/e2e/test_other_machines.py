"""Fleet, two proxies and a worker's host, each on its own: over mutual TLS, with real programs."""

import signal

import pytest

from tests.e2e.place import METADATA_URL, Place, ask_proxy
from tests.e2e.remote import STRANGER, RemotePlace, set_up_remote
from tests.e2e.upstreams import API
from tests.fakes.until import until


@pytest.fixture
async def remote(place: Place) -> RemotePlace:
    return await set_up_remote(place, "a", "b")


async def test_a_violation_at_one_proxy_cuts_the_workers_open_tunnel_at_the_other(
    remote: RemotePlace,
) -> None:
    place = remote.place
    puppet = await remote.puppet("b", "run-1")
    allowed = await puppet.get(place.upstreams.url(API, "/open/thing"))
    assert allowed["status"] == 200
    stream = await remote.stream("b", puppet.proxy_url)
    violation = await ask_proxy(remote.proxy_url("a"), METADATA_URL, puppet.proxy_url)
    assert violation is not None
    assert (violation.status, violation.reason) == (403, "egress.metadata_target")
    await stream.until_cut()
    await until("the runtime ends the program", lambda: not puppet.is_alive())
    assert await puppet.program.ended() == 128 + signal.SIGTERM
    assert "this worker was quarantined" in puppet.program.err.text
    (worker,) = await place.workers()
    assert (worker.admission, worker.lease_id) == ("quarantined", None)
    (found,) = await place.violations()
    proxy_a, proxy_b = (f"proxy-{remote.devices[name].lower()}" for name in ("a", "b"))
    assert (found.payload.proxy_id, worker.binding_proxy_id) == (proxy_a, proxy_b)
    assert (await place.fleet("event", "verify")).code == 0


async def test_a_revoked_proxy_stops_at_once_and_the_workers_bound_to_it_lose_their_lease(
    remote: RemotePlace,
) -> None:
    place = remote.place
    puppet = await remote.puppet("b", "run-1")
    stream = await remote.stream("b", puppet.proxy_url)
    proxy = f"proxy-{remote.devices['b'].lower()}"
    done = await place.fleet("proxy", "revoke", proxy, "--reason", "stolen")
    assert done.code == 0, done.said
    await stream.until_cut()

    async def is_stale() -> bool:
        return await remote.reason("b", puppet.proxy_url) == "fleet.view_stale"

    await until("the proxy carries nothing", is_stale)
    await until("the runtime ends the program", lambda: not puppet.is_alive())
    (worker,) = await place.workers()
    assert worker.lease_id is None
    shown = {one["name"]: one for one in await place.fleet_json("proxy", "list")}
    assert shown[proxy]["revoked_at_unix_ms"] is not None
    assert await remote.has_heard("a")


async def test_a_proxy_comes_back_with_its_fleet_and_a_revoked_machine_does_not(
    remote: RemotePlace,
) -> None:
    place = remote.place
    await remote.restart_fleet()
    for name in ("a", "b"):
        await until("it has heard the new fleet", lambda name=name: remote.has_heard(name))
    done = await place.fleet("device", "revoke", remote.devices["a"], "--reason", "gone")
    assert done.code == 0, done.said

    async def is_stale() -> bool:
        return await remote.reason("a", STRANGER) == "fleet.view_stale"

    await until("the revoked machine's proxy carries nothing", is_stale)
    shown = {one["device_id"]: one for one in await place.fleet_json("proxy", "list")}
    assert shown[remote.devices["a"]]["revoked_at_unix_ms"] is not None
    assert shown[remote.devices["b"]]["revoked_at_unix_ms"] is None
    assert await remote.has_heard("b")


async def test_a_proxy_that_falls_silent_costs_its_workers_their_egress_until_it_is_back(
    remote: RemotePlace,
) -> None:
    place = remote.place
    puppet = await remote.puppet("a", "run-1")
    stream = await remote.stream("b", puppet.proxy_url)
    remote.proxies["a"].signal(signal.SIGSTOP)
    await stream.until_cut()
    assert await remote.reason("b", puppet.proxy_url) == "fleet.egress_suspended"
    shown = {one["device_id"]: one for one in await place.fleet_json("proxy", "list")}
    standings = [shown[remote.devices[name]]["standing"] for name in ("a", "b")]
    assert standings == ["silent", "trusted"]
    remote.proxies["a"].signal(signal.SIGCONT)

    async def is_served() -> bool:
        return await remote.reason("b", puppet.proxy_url) != "fleet.egress_suspended"

    await until("the proxy is heard again", is_served)
    (worker,) = await place.workers()
    assert worker.admission == "active" and worker.lease_id is not None
    for reason in ("worker.egress_suspended", "worker.egress_resumed"):
        assert len(await place.events(reason)) == 1
