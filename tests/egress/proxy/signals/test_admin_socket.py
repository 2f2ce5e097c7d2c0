"""Health, metrics and live view of a real proxy: on its socket, and at an address that is asked
for."""

import asyncio
import stat
from pathlib import Path

import pytest

from palyra_egress.cli.main import main
from tests.egress.proxy.lanes import Chaos, chaos, inspected, plain
from tests.fakes.proxy_harness import WORKER, basic
from tests.fakes.raw_http import ask


@pytest.fixture
async def world(tmp_path: Path):
    async with chaos(tmp_path, health_address=("127.0.0.1", 0)) as made:
        yield made


def health(world: Chaos) -> str:
    host, port = world.harness.proxy.listeners.health_address
    return f"http://{host}:{port}"


def socket_of(world: Chaos) -> Path:
    return world.harness.proxy.enforcement.settings.admin_socket


async def test_the_live_view_shows_connections_bytes_and_verdicts(world: Chaos):
    await plain(world)
    await inspected(world)
    found = await ask(socket_of(world), "GET", "/live")
    live = found.json
    (worker,) = live["workers"]
    assert worker["worker_id"] == WORKER
    assert worker["bytes_in"] == 2 * len(b"hello")
    assert worker["verdicts_by_reason"] == {"egress.allowed": 3}
    assert [one["method"] for one in worker["last_verdicts"]] == ["GET", "CONNECT", "GET"]
    assert live["phase"] == "ready"


async def test_the_live_view_is_not_at_the_address(world: Chaos):
    assert (await ask(health(world), "GET", "/live")).status == 404


async def test_the_socket_is_for_its_owner_only(world: Chaos):
    assert stat.S_IMODE(socket_of(world).stat().st_mode) == 0o600


async def test_liveness_is_an_answer(world: Chaos):
    for where in (socket_of(world), health(world)):
        assert (await ask(where, "GET", "/livez")).status == 200


async def test_readiness_says_which_check_fails_and_on_the_socket_why(world: Chaos):
    """This harness has no fleet to deliver to, and the policy is broken on purpose."""
    enforcement = world.harness.proxy.enforcement
    enforcement.link.evidence_problem = None
    for where in (socket_of(world), health(world)):
        assert (await ask(where, "GET", "/readyz")).status == 200
    enforcement.policy_file.problem = "policy.yaml:3:1: unknown key"
    public = await ask(health(world), "GET", "/readyz")
    assert (public.status, public.json["checks"]["policy"]) == (503, "failed")
    own = await ask(socket_of(world), "GET", "/readyz")
    assert own.json["checks"]["policy"] == "policy.yaml:3:1: unknown key"
    assert set(own.json["checks"]) >= {"policy", "view", "audit", "ca", "channels"}


async def test_a_stale_view_and_a_stopping_proxy_are_not_ready(world: Chaos):
    world.core.view._heard_at_monotonic_ms = None
    checks = (await ask(health(world), "GET", "/readyz")).json["checks"]
    assert checks["view"] == "failed"
    world.harness.proxy.enforcement.refuse_everything()
    assert (await ask(health(world), "GET", "/readyz")).json["checks"]["phase"] == "failed"


async def test_metrics_name_no_host_and_no_worker(world: Chaos):
    await plain(world)
    answer = await ask(health(world), "GET", "/metrics")
    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'palyra_egress_decisions_total{effect="allow",reason="egress.allowed"} 1.0' in text
    assert 'palyra_egress_bytes_total{direction="in"} 5.0' in text
    assert "example" not in text and WORKER not in text


async def test_the_address_is_never_a_target(world: Chaos):
    host, port = world.harness.proxy.listeners.health_address
    assert (host, port) in world.core.service._forbidden
    raw = (
        f"GET http://{host}:{port}/metrics HTTP/1.1\r\nHost: {host}:{port}\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n"
    ).encode()
    reply = await world.harness.send(raw)
    assert reply is not None and reply.status == 403


async def test_other_methods_and_paths_are_refused(world: Chaos):
    assert (await ask(health(world), "POST", "/livez")).status == 405
    assert (await ask(health(world), "GET", "/")).status == 404


async def test_proxy_show_prints_the_view_and_ends_with_one_when_it_is_not_ready(
    world: Chaos, capsys
):
    await plain(world)
    state = str(world.harness.proxy.enforcement.settings.state_dir)
    code = await asyncio.to_thread(main, ["proxy", "show", "--state-dir", state])
    shown = capsys.readouterr()
    assert code == 1  # this harness has no fleet
    assert "not ready: evidence" in shown.err
    assert WORKER in shown.out and "egress.allowed GET http://plain.example" in shown.out
    code = await asyncio.to_thread(main, ["proxy", "show", "--state-dir", state, "-o", "json"])
    assert '"connections"' in capsys.readouterr().out


def test_proxy_show_without_a_proxy_says_what_to_do(tmp_path: Path, capsys):
    assert main(["proxy", "show", "--state-dir", str(tmp_path)]) == 69
    assert "--state-dir" in capsys.readouterr().err
