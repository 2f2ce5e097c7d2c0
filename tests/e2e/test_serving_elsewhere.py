"""`palyra-fleet worker serve` with isolated runs, after it was killed, and with a fleet on another
machine."""

import signal
import sys
from pathlib import Path

import pytest
from ulid import ULID

from tests.e2e.apart import Apart
from tests.e2e.place import FLEET, PUPPET, Place, Puppet, labelled
from tests.e2e.programs import Program
from tests.e2e.remote import set_up_remote
from tests.e2e.test_isolate import WHY_NOT
from tests.e2e.test_pool import WAITS, placed
from tests.e2e.upstreams import API
from tests.fakes.until import until


async def isolated_worker(apart: Apart, temporary: Path) -> Program:
    """It waits, with workspaces in `temporary`, for runs that are isolated."""
    program = await apart.place.programs.start(
        *(FLEET, "worker", "serve", "--isolate", "--hide", apart.place.home),
        *("--worker-id", str(ULID())),
        *("--socket", apart.place.home / "run" / "fleet.sock"),
        *("--proxy", apart.proxy_url.removeprefix("http://")),
        *("--launcher-key", apart.place.directory / "launcher.key"),
        *("--ca", labelled(apart.proxy, "worker CA")),
        *("--ca-bundle", labelled(apart.proxy, "worker bundle")),
        *("--", sys.executable, PUPPET),
        environment={**apart.place.worker_environment, "TMPDIR": str(temporary)},
        with_input=True,
    )
    await until("it waits for a run", lambda: WAITS in program.err.text)
    return program


@pytest.mark.skipif(WHY_NOT is not None, reason=f"no namespaces: {WHY_NOT}")
async def test_isolated_runs_one_after_the_other_and_what_a_killed_one_left_is_removed(
    apart: Apart, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = apart.place.upstreams.url(API, "/open/thing")
    place = tmp_path_factory.mktemp("workspaces")
    worker = await isolated_worker(apart, place)
    lines = 0
    for number in range(2):
        waited = worker.err.text.count(WAITS)
        await placed(apart, f"run-{number}")
        puppet = await Puppet.of(worker, lines)
        assert (await puppet.get(url))["status"] == 200
        puppet.leave(0)
        lines = puppet.lines
        await until("it waits again", lambda before=waited: worker.err.text.count(WAITS) > before)
    (registered,) = await apart.place.events("worker.registered")
    assert registered.detail["binding_level"] == "enforced"
    assert list(place.iterdir()) == []

    await placed(apart, "run-cut")
    await Puppet.of(worker, lines)
    (left,) = place.iterdir()
    worker.signal(signal.SIGKILL)
    await worker.ended()
    assert left.is_dir()
    again = await isolated_worker(apart, place)
    assert not left.exists()
    assert str(left) not in again.err.text, "what went well is no news for people"


async def test_a_worker_waits_for_runs_of_a_fleet_on_another_machine(place: Place) -> None:
    remote = await set_up_remote(place, "b")
    proxy = remote.proxies["b"]
    worker = await place.programs.start(
        *(FLEET, "worker", "serve", "--fleet", remote.url),
        *("--device", remote.machine("host") / "device", "--runs", "2"),
        *("--proxy", remote.proxy_url("b").removeprefix("http://")),
        *("--ca", labelled(proxy, "worker CA")),
        *("--ca-bundle", labelled(proxy, "worker bundle")),
        *("--", sys.executable, PUPPET),
        environment=place.worker_environment,
        with_input=True,
    )
    lines = 0
    for number in range(2):
        run_id = f"run-{number}"
        granted = ("--tool", "puppet", "--principal", "tests", "--profile", "api")
        assert (await place.fleet("grant", "create", run_id, *granted)).code == 0
        await place.fleet_json("run", "place", run_id, "--wait", "60")
        puppet = await Puppet.of(worker, lines)
        assert (await puppet.get(place.upstreams.url(API, "/open/thing")))["status"] == 200
        puppet.leave(0)
        lines = puppet.lines
    assert await worker.ended() == 0
    (registered,) = await place.events("worker.registered")
    assert registered.detail["device_id"] == remote.devices["host"]
    assert len(await place.events("worker.completed")) == 2
