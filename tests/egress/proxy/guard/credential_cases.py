"""Plays the corpora's cases about credentials: their secrets as our bindings, over real sockets."""

from pathlib import Path
from typing import Any

from tests.egress.proxy.corpora_world import Case
from tests.egress.proxy.guard.credential_world import CredentialWorld, credential_world, fields_of
from tests.fakes.proxy_harness import WORKER, Reply, read_to_end
from tests.fakes.secrets import SecretsInMemory

REF = "vault:global/case"
SECRET = "sk-real-openai-key"
_INJECTING = f"""\
version: 1
name: case
rules:
  - id: bound
    hosts: [bound.example]
    private: [127.0.0.0/8]
    credentials: [{{header: authorization, secret: "{REF}", format: "Bearer {{secret}}"}}]
  - id: elsewhere
    hosts: [elsewhere.example]
    private: [127.0.0.0/8]
profiles: {{test: [bound, elsewhere]}}
"""
NAMES = ("bound.example", "elsewhere.example", "api.openai.com", "api.anthropic.com")


def _policy_of(case: Case) -> str:
    """The peer searches every header, or those of a pattern; ours names each header."""
    secret, sent = case["input"]["secret"], case["input"]["request"].get("headers", {})
    wanted = secret["match_headers"] or list(sent)
    names = ["X-Api-Key" if name.startswith("/") else name for name in wanted]
    bindings = [
        f'{{header: {name}, secret: "{REF}", placeholder: {secret["placeholder"]}}}'
        for name in names
    ]
    return (
        "version: 1\nname: case\nrules:\n"
        f"  - id: bound\n    hosts: {secret['hosts']}\n    private: [127.0.0.0/8]\n"
        f"    credentials: [{', '.join(bindings)}]\nprofiles: {{test: [bound]}}\n"
    )


async def swapped(case: Case, directory: Path, monkeypatch: Any) -> None:
    """A placeholder of the worker, at the headers the case names and at others."""
    given, expected = case["input"]["request"], case["expected"]
    secrets = SecretsInMemory({REF: case["input"]["secret"]["secret"]})
    policy = _policy_of(case)
    async with credential_world(
        directory, monkeypatch, policy, secrets=secrets, certified=NAMES
    ) as world:
        target = given.get("target", "/")
        lines = [f"{name}: {value}" for name, value in given.get("headers", {}).items()]
        reply = await world.ask(given["host"], target, *lines)
        assert reply is not None
        if expected == "deny":
            assert reply.reason == "egress.credential_header_not_allowed"
            assert world.heads == []
            return
        assert reply.status == 200
        (head,) = world.heads
        for name, value in expected.get("headers", {}).items():
            assert head[name.lower()] == [value]
        wanted = expected.get("target", target)
        assert world.secure.heads == [f"GET {wanted} HTTP/1.1".encode()]


async def injected(case: Case, directory: Path, monkeypatch: Any) -> None:
    """A credential that must not go along, or that cannot be had, or whose worker must stop."""
    given = case["input"]
    secrets = SecretsInMemory({} if "oauth_mint_fails" in given else {REF: SECRET})
    async with credential_world(
        directory, monkeypatch, _INJECTING, secrets=secrets, certified=NAMES
    ) as world:
        if "redirect" in given:
            await _redirected(world)
        elif "oauth_mint_fails" in given:
            reply = await world.ask("bound.example")
            assert reply is not None and reply.reason == "egress.credential_unavailable"
            assert world.secure.connections == 0
        else:
            assert given["worker_quarantined"] is True
            await _quarantined(world)


async def _redirected(world: CredentialWorld) -> None:
    world.replies = [
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://elsewhere.example/\r\n"
        b"Content-Length: 0\r\n\r\n"
    ]
    first: Reply | None = await world.ask("bound.example")
    assert first is not None and first.headers["location"] == "https://elsewhere.example/"
    followed = await world.ask("elsewhere.example")
    assert followed is not None and followed.status == 200
    assert [head.get("authorization") for head in world.heads] == [[f"Bearer {SECRET}"], None]


async def _quarantined(world: CredentialWorld) -> None:
    talk = await world.open("bound.example")
    await talk.ask("/")
    world.harness.tell("block", worker_id=WORKER)
    assert await read_to_end(talk.reader) == b""
    await world.secure.wait_until_closed()
    refused, _, _ = await world.harness.tunnel("bound.example:443")
    assert refused is not None and refused.reason == "egress.quarantined"
    assert fields_of(bytes(world.secure.received))["authorization"] == [f"Bearer {SECRET}"]
    assert len(world.heads) == 1
