"""Roots and client certificates by rule, over real TLS: asserted on what the servers received and
whom they saw."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from palyra_egress.proxy.egress_proxy import PolicyRefused
from palyra_egress.proxy.http.upstream_pool import MAX_UPSTREAMS
from palyra_egress.verdict import UpstreamTls
from palyra_fleet.tasks import spawn
from tests.egress.proxy.tls.upstream_tls_world import (
    POLICY,
    UpstreamTlsWorld,
    upstream_tls_world,
)
from tests.fakes.client_certificates import issue_client, replace_file
from tests.fakes.h2_worker import h2_worker
from tests.fakes.proxy_harness import OTHER_LEASE, OTHER_SECRET, basic
from tests.fakes.until import until

AGENT = UpstreamTls("corp", "agent")
BOTH = pytest.mark.parametrize("speaks", [1, 2], ids=["http1", "http2"])


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[UpstreamTlsWorld]:
    async with upstream_tls_world(tmp_path) as made:
        yield made


# --- what is shown --------------------------------------------------------------------------------


@BOTH
async def test_a_server_that_demands_a_certificate_sees_the_rules(world, speaks):
    assert (await world.ask("/agent", speaks)).startswith("200")
    assert (await world.ask("/auditor", speaks)).startswith("200")
    assert [who[:2] for who in world.seen] == [("/agent", "agent"), ("/auditor", "auditor")]
    entry = world.verdict()
    assert (entry["upstream_roots"], entry["client_certificate"]) == ("corp", "auditor")


@BOTH
@pytest.mark.parametrize("path", ["/nobody", "/stranger"])
async def test_without_the_right_certificate_the_server_gets_no_request(world, speaks, path):
    assert (await world.ask(path, speaks)).startswith("502")
    assert world.nothing_arrived


@BOTH
async def test_a_certificate_that_has_ended_is_not_shown_to_anybody(world, speaks):
    assert "egress.upstream_tls_unavailable" in await world.ask("/expired", speaks)
    assert world.first.connections == world.second.connections == 0
    entry = world.verdict()
    assert (entry["rule_id"], entry["client_certificate"]) == ("expired", "expired")
    assert "client certificate expired: ended on " in (world.store.problem or "")


async def test_a_server_that_does_not_ask_is_shown_nothing(world):
    assert (await world.ask("/shown", 0, "open.example")).startswith("200")
    assert [who[:2] for who in world.seen] == [("/shown", None)]


async def test_what_is_only_observed_meets_its_server_as_usual(world):
    assert (await world.ask("/allowed", 0, "watched.example")).startswith("200")
    assert world.verdict()["client_certificate"] == "agent"
    assert (await world.ask("/elsewhere", 0, "watched.example")).startswith("200")
    entry = world.verdict()
    assert entry["would_deny"] == "egress.path_not_allowed"
    assert "client_certificate" not in entry


# --- what is trusted ------------------------------------------------------------------------------


async def test_a_rules_roots_take_the_place_of_the_bundle(world):
    assert (await world.ask("/usual", 0, "open.example")).startswith("200")
    world.seen.clear(), world.open.received.clear()
    assert "egress.upstream_tls" in await world.ask("/corp", 0, "open.example")
    assert "egress.upstream_tls" in await world.ask("/usual", 1)
    assert "egress.upstream_tls" in await world.ask("/usual", 2)
    assert world.nothing_arrived


async def test_a_rules_roots_vouch_for_exactly_the_judged_host(tmp_path):
    policy = POLICY.replace("hosts: [ledger.example], ports", "hosts: [open.example], ports", 1)
    async with upstream_tls_world(tmp_path, policy) as world:
        assert "egress.upstream_tls" in await world.ask("/agent", 1, "open.example")
        assert world.first.connections == 1
        assert world.nothing_arrived


# --- connections ----------------------------------------------------------------------------------


async def test_no_connection_is_shared_between_certificates_over_http1(world):
    asked = await world.talk(world.authority())
    for path in ("/agent", "/auditor", "/agent", "/auditor"):
        reply = await asked(path)
        assert reply is not None and reply.status == 200
    assert [(path, who) for path, who, _ in world.seen] == [
        (path, path[1:]) for path in ("/agent", "/auditor", "/agent", "/auditor")
    ]
    assert len({place for _, who, place in world.seen if who == "agent"}) == 1, "its own is reused"
    assert world.first.connections == 2


async def test_no_connection_is_shared_between_certificates_over_http2(world):
    paths = ["/agent", "/auditor", "/agent/2", "/stranger", "/auditor"]
    async with h2_worker(world.harness, world.authority(2)) as worker:
        streams = [worker.ask(worker.fields("GET", path)) for path in paths]
        answers = [(await worker.answer(stream)).status for stream in streams]
    assert answers == [200, 200, 200, 502, 200]
    seen = sorted((path, who) for path, who, _ in world.seen)
    assert seen == [
        ("/agent", "agent"),
        ("/agent/2", "agent"),
        ("/auditor", "auditor"),
        ("/auditor", "auditor"),
    ]
    places = {
        who: {place for _, one, place in world.seen if one == who} for _, who, _ in world.seen
    }
    assert not places["agent"] & places["auditor"]


async def test_two_workers_with_one_certificate_have_connections_of_their_own(world):
    for credentials in (basic(), basic(OTHER_LEASE, OTHER_SECRET)):
        asked = await world.talk(world.authority(), credentials=credentials)
        assert (await asked("/agent")).status == 200
    assert len({place for _, _, place in world.seen}) == world.first.connections == 2


# --- rotation -------------------------------------------------------------------------------------


@BOTH
async def test_a_rotated_certificate_is_shown_to_the_next_request_on_a_new_connection(
    world, speaks, tmp_path
):
    authority = world.authority(speaks)
    if speaks == 2:
        async with h2_worker(world.harness, authority) as worker:
            await _rotates(world, tmp_path, lambda: worker.get("/agent"))
    else:
        asked = await world.talk(authority)
        await _rotates(world, tmp_path, lambda: asked("/agent"))


async def _rotates(world, tmp_path, get):
    assert (await get()).status == 200
    before = world.store.find(AGENT)
    issue_client(world.agents, "agent of tomorrow", tmp_path / "keys", called="agent")
    await until(
        "the new certificate is read", lambda: world.store.find(AGENT) not in (None, before)
    )
    assert (await get()).status == 200
    (_, old, first), (_, new, second) = world.seen
    assert (old, new) == ("agent", "agent of tomorrow")
    assert first != second


@BOTH
async def test_connections_that_nobody_may_use_any_more_take_no_ones_place(world, speaks, tmp_path):
    async def rotates(get):
        for number in range(MAX_UPSTREAMS + 2):
            issue_client(world.agents, f"agent {number}", tmp_path / "keys", called="agent")
            world.store.read_again()
            assert (await get()).status == 200

    if speaks == 2:
        async with h2_worker(world.harness, world.authority(2)) as worker:
            await rotates(lambda: worker.get("/agent"))
    else:
        asked = await world.talk(world.authority())
        await rotates(lambda: asked("/agent"))
    assert [who for _, who, _ in world.seen] == [f"agent {n}" for n in range(MAX_UPSTREAMS + 2)]


async def test_a_pair_that_is_replaced_half_way_changes_nothing_until_it_is_whole(world):
    files, other = world.files["agent"], world.files["auditor"]
    whole = files.key.read_bytes()
    replace_file(files.key, other.key.read_bytes())
    world.store.read_again()
    assert "not the key of the first certificate" in (world.store.problem or "")
    assert (await world.ask("/agent")).startswith("200")
    replace_file(files.key, whole)
    world.store.read_again()
    assert "agent:" not in (world.store.problem or "")
    assert world.seen[-1][1] == "agent"


@pytest.mark.parametrize("gone", ["certificate", "key", "roots", "too open"])
async def test_what_is_gone_refuses_its_rules_and_no_others(world, gone, caplog):
    path = world.roots if gone == "roots" else world.files["agent"].key
    path = world.files["agent"].certificate if gone == "certificate" else path
    path.chmod(0o644) if gone == "too open" else path.unlink()
    world.store.read_again()
    kind = "roots corp" if gone == "roots" else "client certificate agent"
    assert f"the {kind} is gone: {path}: " in caplog.text
    answer = await world.ask("/agent")
    assert answer.startswith("503") and "egress.upstream_tls_unavailable" in answer
    assert world.nothing_arrived and world.first.connections == 0
    assert str(path) in world.harness.proxy.enforcement.problems()["server_tls"]
    if gone != "roots":
        assert (await world.ask("/auditor")).startswith("200")
    assert (await world.ask("/usual", 0, "open.example")).startswith("200")


async def test_other_roots_hold_from_the_next_request_on(world):
    asked = await world.talk(world.authority())
    assert (await asked("/agent")).status == 200
    replace_file(world.roots, world.public.ca_file.read_bytes())
    world.store.read_again()
    assert (await asked("/agent")).status == 502
    assert len(world.seen) == 1


# --- policy ---------------------------------------------------------------------------------------


async def test_a_request_under_way_is_cut_when_its_rule_shows_something_else(world):
    stays_open = asyncio.Event()

    async def begins(_head, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await stays_open.wait()

    world.first.respond = begins
    talk = await world.talk(world.authority())
    asked = spawn(talk("/agent"), "a request that stays open")
    await until("the server is asked", lambda: world.first.heads)
    file = world.harness.directory / "policy.yaml"
    file.write_text(
        file.read_text().replace("client_certificate: agent", "client_certificate: auditor", 1)
    )
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with asyncio.timeout(60):
            await asked
    stays_open.set()
    revoked = [entry for entry in world.harness.audit() if entry["kind"] == "revoked"]
    assert [entry["reason"] for entry in revoked] == ["egress.policy_changed"]


MISSPELT = POLICY.replace("client_certificate: auditor", "client_certificate: auditr")


async def test_a_name_that_is_not_set_up_refuses_the_policy_with_its_place(tmp_path):
    with pytest.raises(PolicyRefused) as refused:
        async with upstream_tls_world(tmp_path, MISSPELT):
            pass
    told = str(refused.value)
    assert "policy.yaml:7:79: unknown_tls_name: the rule 'auditor' has client_certificate" in told
    assert told.endswith("one of agent, auditor, expired, stranger; did you mean 'auditor'?")


async def test_a_running_proxy_keeps_its_policy_when_a_new_one_names_what_is_not_set_up(
    world, caplog
):
    file, before = world.harness.directory / "policy.yaml", world.harness.core.service.policy_digest
    with caplog.at_level(logging.ERROR):
        file.write_text(file.read_text().replace("roots: corp", "roots: crop", 1))
        await until("the mistake is told", lambda: "did you mean 'corp'?" in caplog.text)
    assert world.harness.core.service.policy_digest == before
    assert (await world.ask("/agent")).startswith("200")


async def test_no_key_stands_in_a_log_an_entry_or_a_repr(world, caplog):
    with caplog.at_level(logging.DEBUG):
        await world.ask("/agent"), await world.ask("/stranger"), await world.ask("/expired")
        world.files["agent"].key.unlink()
        world.store.read_again()
        await world.ask("/agent")
    way = world.store.find(UpstreamTls("corp", "auditor"))
    assert way is not None and way.shown is not None
    told = world.everything_told() + f"{caplog.text}{way!r}{way.shown!r}{world.store!r}".encode()
    for files in world.files.values():
        lines = files.key.read_bytes().splitlines() if files.key.exists() else []
        assert not any(line in told for line in lines[1:-1])
