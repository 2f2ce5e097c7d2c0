"""Fleet and proxy as two programs, and what happens while one of them is gone."""

import signal
import sys
from typing import Any

from tests.e2e.apart import PROXY_NAME, Apart, start_fleet, start_proxy
from tests.e2e.place import FLEET, METADATA_URL, Place, Puppet, ask_proxy, labelled
from tests.e2e.upstreams import API, GIT
from tests.fakes.proxy_harness import LEASE, SECRET
from tests.fakes.until import until

VIEW_AGE_S = 5.0


async def text_of(puppet: Puppet, url: str) -> str:
    answer: dict[str, Any] = await puppet.get(url)
    return str(answer["text"])


async def test_allowed_refused_and_quarantined_with_fleet_and_proxy_apart(apart: Apart) -> None:
    place = apart.place
    puppet = await apart.puppet("run-1")
    allowed = await puppet.get(place.upstreams.url(API, "/open/thing"))
    assert allowed["status"] == 200
    assert "egress.host_not_allowed" in await text_of(puppet, place.upstreams.url(GIT, "/"))
    (worker,) = await place.workers()
    assert worker.binding_proxy_id == PROXY_NAME
    # asked from here: the runtime may end the program before it can say what it read
    violation = await ask_proxy(apart.proxy_url, METADATA_URL, puppet.proxy_url)
    assert violation is not None
    assert (violation.status, violation.reason) == (403, "egress.metadata_target")
    await until("the runtime ends the program", lambda: not puppet.is_alive())
    assert await puppet.program.ended() == 128 + signal.SIGTERM
    assert "this worker was quarantined" in puppet.program.err.text
    (worker,) = await place.workers()
    assert (worker.admission, worker.lease_id) == ("quarantined", None)
    assert worker.quarantine_reason == "egress.metadata_target"
    assert len(await place.violations()) == 1


async def test_a_worker_cannot_speak_to_a_proxy_that_was_not_enrolled(place: Place) -> None:
    await start_fleet(place)
    proxy = await start_proxy(place)
    reply = await ask_proxy(
        labelled(proxy, "proxy"),
        place.upstreams.url(API, "/open/thing"),
        f"http://{LEASE}:{SECRET}@proxy.example",
    )
    assert reply is not None and (reply.status, reply.reason) == (503, "fleet.view_stale")


async def test_without_the_fleet_everything_is_refused_and_with_it_service_resumes(
    apart: Apart,
) -> None:
    place = apart.place
    url = place.upstreams.url(API, "/open/thing")
    puppet = await apart.puppet("run-1")
    assert (await puppet.get(url))["status"] == 200
    apart.fleet.signal(signal.SIGTERM)
    assert await apart.fleet.ended() == 0

    async def is_stale() -> bool:
        return "503 Palyra: fleet.view_stale" in await text_of(puppet, url)

    await until("the view is too old", is_stale, within_s=VIEW_AGE_S + 20.0)
    arrived = len(place.upstreams.seen)
    for _ in range(3):
        assert await is_stale()
    assert len(place.upstreams.seen) == arrived

    await apart.restart_fleet()

    async def is_served() -> bool:
        return (await puppet.get(url))["status"] == 200

    await until("service resumes", is_served)
    assert await puppet.exit(3) == 3
    (worker,) = await place.workers()
    assert (worker.lease_id, worker.work) == (None, "idle")


async def test_a_killed_fleet_comes_back_with_the_same_lease_and_a_whole_log(apart: Apart) -> None:
    puppet = await apart.puppet("run-1")
    await apart.fleet.kill()
    await apart.restart_fleet()

    async def is_served() -> bool:
        return (await puppet.get(apart.place.upstreams.url(API, "/open/x")))["status"] == 200

    await until("service resumes", is_served)
    assert await puppet.exit(0) == 0
    await apart.command("event", "verify")


async def test_a_restarted_proxy_serves_the_leases_that_are_still_live(apart: Apart) -> None:
    url = apart.place.upstreams.url(API, "/open/thing")
    puppet = await apart.puppet("run-1")
    await apart.proxy.kill()
    await apart.restart_proxy()

    async def is_served() -> bool:
        reply = await ask_proxy(apart.proxy_url, url, puppet.proxy_url)
        return reply is not None and reply.status == 200

    await until("the new proxy has heard the fleet", is_served)


async def test_a_grant_serves_one_run_and_a_stranger_program_none(apart: Apart) -> None:
    puppet = await apart.puppet("run-1")
    assert await puppet.exit(0) == 0
    again = await apart.place.programs.finished(
        *(FLEET, "worker", "run", "--socket", apart.place.home / "run" / "fleet.sock"),
        *("--proxy", apart.proxy_url.removeprefix("http://")),
        *("--launcher-key", apart.place.directory / "launcher.key", "--run-id", "run-1"),
        *("--ca", apart.place.ca.ca_file, "--ca-bundle", apart.place.ca.ca_file),
        *("--", sys.executable, "-c", ""),
        environment=apart.place.worker_environment,
    )
    assert again.code == 1
    assert "the fleet refused" in again.err
    await apart.granted("run-2")
    stranger = await apart.place.programs.finished(
        *(FLEET, "worker", "run", "--socket", apart.place.home / "run" / "fleet.sock"),
        *("--proxy", apart.proxy_url.removeprefix("http://")),
        *("--launcher-key", apart.place.directory / "launcher.key", "--run-id", "run-2"),
        *("--ca", apart.place.ca.ca_file, "--ca-bundle", apart.place.ca.ca_file),
        *("--", "sh", "-c", "true"),
        environment=apart.place.worker_environment,
    )
    assert stranger.code == 1
    assert "did not match the expected value" in stranger.err
