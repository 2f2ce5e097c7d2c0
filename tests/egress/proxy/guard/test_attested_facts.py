"""A profile that demands facts, over real sockets: the fleet's word decides, at every request."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.policy.recorded import NotJudgeable
from palyra_egress.policy.replay import replay
from palyra_fleet.wire.view_models import AttestedFacts
from tests.egress.policy.policy_text import policy
from tests.fakes.proxy_harness import Harness, basic, binding, proxy_harness, read_reply
from tests.fakes.upstream import RecordingUpstream, recording_upstream

A, B = "a" * 64, "b" * 64
POLICY = """\
version: 1
name: test
rules:
  - id: api
    hosts: [api.example]
    ports: [{port}]
    private: [127.0.0.0/8]
profiles:
  test:
    rules: [api]
    requires: {{{requires}}}
violations:
  quarantine: [private_target]
"""
HOSTS = "127.0.0.1 api.example\n"
type World = tuple[Harness, RecordingUpstream, str]


def facts(**known: object) -> AttestedFacts:
    return AttestedFacts.model_validate({"binding_level": "observed", **known})


@pytest.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest):
    ca = UpstreamCa.create(tmp_path / "ca")
    async with recording_upstream(ca.server_context("api.example")) as upstream:
        text = POLICY.format(port=upstream.port, requires=request.param)
        async with proxy_harness(tmp_path / "proxy", text, HOSTS, ca.ca_file) as harness:
            yield harness, upstream, f"api.example:{upstream.port}"


async def asked(world: World, known: AttestedFacts) -> str:
    """What a worker with these facts is told: at CONNECT, and if that passes inside the tunnel."""
    harness, _, authority = world
    harness.tell("bind", bindings=(binding(facts=known),))
    reply, reader, writer = await harness.tunnel(authority)
    assert reply is not None
    if reply.status != 200:
        assert reply.status == 403
        return reply.reason.removeprefix("egress.")
    writer.write(f"GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    answer = await read_reply(reader)
    assert answer is not None and (answer.status, answer.body) == (200, b"hello")
    return "200"


REFUSED = "profile_requirements"


@pytest.mark.parametrize(
    ("world", "known", "answer"),
    [
        ("binding_level: enforced", facts(), REFUSED),
        ("binding_level: enforced", facts(binding_level="enforced"), "200"),
        ("binding_level: observed", facts(), "200"),
        ("binding_level: claimed", AttestedFacts(), REFUSED),
        (f"image_digests: ['sha256:{A}']", facts(image_digest_sha256=B), REFUSED),
        (f"image_digests: ['sha256:{A}']", facts(), REFUSED),
        (f"image_digests: ['sha256:{A}']", facts(artifact_digest_sha256=A), REFUSED),
        (f"image_digests: ['sha256:{A}']", facts(image_digest_sha256=A), "200"),
        (f"build_digests: ['sha256:{A}']", facts(build_digest_sha256=B), REFUSED),
        (f"build_digests: ['sha256:{A}']", facts(build_digest_sha256=A), "200"),
        (f"artifact_digests: ['sha256:{A}']", facts(artifact_digest_sha256=B), REFUSED),
        (f"artifact_digests: ['sha256:{A}']", facts(artifact_digest_sha256=A), "200"),
        ("capabilities: [gpu, net]", facts(capabilities=("gpu",)), REFUSED),
        ("capabilities: [gpu, net]", facts(capabilities=("gpu", "net", "x")), "200"),
    ],
    indirect=["world"],
)
async def test_a_worker_gets_its_profile_only_with_the_facts_that_it_demands(world, known, answer):
    harness, upstream, _ = world
    assert await asked(world, known) == answer
    entry = harness.verdicts()[-1]
    assert entry["binding_level"] == known.binding_level
    assert entry["capabilities"] == list(known.capabilities)
    if answer == REFUSED:
        assert upstream.connections == 0 and entry["addresses"] == []
        assert (entry["rule_id"], entry["class"], entry["policy_line"]) == (None, "policy", 9)


@pytest.mark.parametrize("world", ["binding_level: enforced"], indirect=True)
async def test_a_refusal_tells_the_worker_the_reason_and_not_what_is_demanded(world):
    harness, _, authority = world
    raw = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
    reply = await harness.send(f"{raw}Proxy-Authorization: {basic()}\r\n\r\n".encode())
    assert reply is not None and reply.reason == "egress.profile_requirements"
    told = reply.body + repr(reply.headers).encode()
    assert b"enforced" not in told and b"binding_level" not in told
    assert b"what its profile requires" in told


@pytest.mark.parametrize("world", ["binding_level: enforced"], indirect=True)
async def test_a_worker_that_is_known_for_less_loses_its_open_tunnel_and_its_next_request(world):
    harness, upstream, authority = world
    assert await asked(world, facts(binding_level="enforced")) == "200"
    reply, reader, writer = await harness.tunnel(authority)
    assert reply is not None and reply.status == 200
    harness.tell("bind", bindings=(binding(facts=facts()),))
    async with asyncio.timeout(60):
        with contextlib.suppress(OSError):  # a reset is an end too
            assert await reader.read() == b""
    writer.close()
    heads = len(upstream.heads)
    assert await asked(world, facts()) == REFUSED
    assert len(upstream.heads) == heads


@pytest.mark.parametrize("world", ["binding_level: observed"], indirect=True)
async def test_a_tunnel_goes_on_while_its_workers_facts_get_better(world):
    harness, _, authority = world
    harness.tell("bind", bindings=(binding(facts=facts()),))
    reply, reader, writer = await harness.tunnel(authority)
    assert reply is not None and reply.status == 200
    better = facts(binding_level="enforced", image_digest_sha256=A)
    harness.tell("bind", bindings=(binding(facts=better),))
    writer.write(f"GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    answer = await read_reply(reader)
    assert answer is not None and answer.status == 200
    entry = harness.verdicts()[-1]
    assert (entry["binding_level"], entry["image_digest"]) == ("enforced", f"sha256:{A}")


@pytest.mark.parametrize("world", ["binding_level: enforced"], indirect=True)
async def test_a_request_is_judged_by_what_the_fleet_says_while_it_is_judged(world):
    """Between the look-up and the verdict the worker is known for less: the verdict knows it."""
    harness, upstream, authority = world
    harness.tell("bind", bindings=(binding(facts=facts(binding_level="enforced")),))
    resolve = harness.core.resolver.resolve

    async def slow(host: str, port: int, asker: str = "") -> tuple[str, ...]:
        found: tuple[str, ...] = await resolve(host, port, asker)
        harness.tell("bind", bindings=(binding(facts=facts()),))
        return found

    harness.core.resolver.resolve = slow
    try:
        reply, _, _ = await harness.tunnel(authority)
    except OSError:
        reply = None
    assert reply is None or reply.status == 403
    assert harness.verdicts()[-1]["reason"] == "egress.profile_requirements"
    assert upstream.connections == 0


@pytest.mark.parametrize("world", ["binding_level: enforced"], indirect=True)
async def test_replay_judges_what_was_recorded_with_the_facts_of_its_time(world):
    harness, _, _ = world
    assert await asked(world, facts(binding_level="enforced")) == "200"
    assert await asked(world, facts()) == REFUSED
    entries = harness.verdicts()
    port = entries[0]["port"]
    rules = f"rules: [{{id: api, hosts: [api.example], ports: [{port}], private: [127.0.0.0/8]}}]\n"
    laxer = policy(f"{rules}profiles: {{test: {{rules: [api], limits: {{}}}}}}\n")
    stricter = policy(
        f"{rules}profiles: {{test: {{rules: [api], requires: {{capabilities: [gpu]}}}}}}\n"
    )
    opened = replay(entries, laxer)
    assert [(str(one.before), str(one.after)) for one, _ in opened.groups] == [
        ("refused profile_requirements", "allowed if its addresses pass")
    ]
    assert opened.same == 2
    assert replay(entries, stricter).broken == 2
    for entry in entries:
        del entry["binding_level"]
    assert replay(entries, stricter).not_judged == {NotJudgeable.NO_FACTS: 3}
    assert replay(entries, laxer).not_judged == {}
