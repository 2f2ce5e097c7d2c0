"""Where tests of tunnels that are passed on play: the proxy, a server with TLS, and one without."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.bounds.deadlines import Deadlines
from tests.fakes.client_hello import (
    SERVER_HELLO,
    hello,
)
from tests.fakes.proxy_harness import (
    Harness,
    Injection,
    proxy_harness,
)
from tests.fakes.scripted_server import ScriptedServer, scripted_server
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY = """\
version: 1
name: tunnels
tls: {{default: tunnel}}
rules:
  - {{id: plainly, hosts: [t.example], ports: [{raw}, {secure}, 9], private: [127.0.0.0/8]}}
  - {{id: sealed, hosts: [sealed.example], ports: [{raw}], private: [127.0.0.0/8], ech: true}}
  - id: nameless
    hosts: [nameless.example]
    ports: [{raw}]
    private: [127.0.0.0/8]
    missing_sni: true
  - {{id: literal, hosts: [127.0.0.1], ports: [{raw}], private: [127.0.0.0/8]}}
  - id: small
    hosts: [small.example]
    ports: [{raw}]
    private: [127.0.0.0/8]
    limits: {{max_request_bytes: 1KiB, max_response_bytes: 1KiB}}
  - id: hourly
    hosts: [hourly.example]
    ports: [{raw}]
    private: [127.0.0.0/8]
    limits: {{bytes_per_hour: 1KiB, requests_per_minute: 2}}
  - id: seen
    hosts: [seen.example]
    ports: [{secure}]
    private: [127.0.0.0/8]
    tls: inspect
    missing_sni: true
profiles:
  test: [plainly, sealed, nameless, literal, small, hourly, seen]
violations:
  quarantine: [metadata_target]
"""
NAMES = "t sealed nameless small hourly seen other"
HOSTS = "127.0.0.1 " + " ".join(f"{name}.example" for name in NAMES.split()) + "\n"
HELLO = hello(b"t.example")


@dataclass
class World:
    harness: Harness
    raw: ScriptedServer
    secure: RecordingUpstream
    context: ssl.SSLContext
    """Of the server with TLS."""
    roots: Path

    @property
    def policy_file(self) -> Path:
        return self.harness.proxy.enforcement.settings.policy_file

    async def open(
        self, name: str = "t.example", after: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An allowed CONNECT to the server without TLS."""
        target = f"{name}:{self.raw.port}"
        reply, reader, writer = await self.harness.connect_to(target, after=after)
        assert reply is not None and reply.status == 200
        return reader, writer

    async def established(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A tunnel in which both sides have said hello."""
        reader, writer = await self.open()
        writer.write(HELLO)
        assert await reader.readexactly(len(SERVER_HELLO)) == SERVER_HELLO
        return reader, writer

    def reasons(self) -> list[str]:
        return [e["reason"].removeprefix("egress.") for e in self.harness.verdicts()]

    def outcomes(self) -> list[str]:
        return [e["outcome"] for e in self.harness.audit() if e["kind"] == "transfer"]

    def revoked(self) -> list[str]:
        return [e["reason"] for e in self.harness.audit() if e["kind"] == "revoked"]


@asynccontextmanager
async def open_world(directory: Path, **deadlines: float) -> AsyncIterator[World]:
    ca = UpstreamCa.create(directory / "ca")
    context = ca.server_context("t.example", "seen.example")
    inject = Injection(deadlines=Deadlines(**deadlines))
    async with (
        scripted_server(SERVER_HELLO) as raw,
        recording_upstream(context) as secure,
        proxy_harness(
            directory / "proxy",
            POLICY.format(raw=raw.port, secure=secure.port),
            HOSTS,
            ca.ca_file,
            inject=inject,
        ) as harness,
    ):
        yield World(harness, raw, secure, context, ca.ca_file)
