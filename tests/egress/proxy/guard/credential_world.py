"""A proxy with secrets, and upstreams that record what they are sent, for tests of credentials."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy import handler
from palyra_egress.proxy.sockets.pinned_dial import dial_pinned
from tests.fakes.proxy_harness import Harness, Reply, basic, proxy_harness, read_reply
from tests.fakes.secrets import SecretsInMemory
from tests.fakes.upstream import RecordingUpstream, recording_upstream

TOKEN: Final = "ghp_the-real-token-0123456789"
KEY: Final = "sk-the-real-key-0123456789"
PASSWORD: Final = "the-real-password-0123456789"
HOLDER: Final = "token-goes-here"
REAL: Final = [TOKEN.encode(), KEY.encode(), PASSWORD.encode()]
SECRETS: Final = {
    "vault:global/token": TOKEN,
    "env:KEY": KEY,
    "file:password": PASSWORD,
}
POLICY: Final = """\
version: 1
name: credentials
rules:
  - id: api
    hosts: [api.example]
    methods: [GET, POST]
    private: [127.0.0.0/8]
    credentials:
      - {header: authorization, secret: "vault:global/token", format: "Bearer {secret}"}
      - {header: x-api-key, secret: "env:KEY"}
    limits: {max_response_bytes: 64KiB}
  - id: basic
    hosts: [basic.example]
    private: [127.0.0.0/8]
    credentials:
      - {header: authorization, secret: "file:password", basic_user: x-access-token}
  - id: swap
    hosts: [swap.example]
    private: [127.0.0.0/8]
    credentials:
      - {header: authorization, secret: "vault:global/token", placeholder: token-goes-here}
  - id: open-path
    hosts: [api.example]
    paths: [/open/**]
    private: [127.0.0.0/8]
  - id: missing
    hosts: [missing.example]
    private: [127.0.0.0/8]
    credentials: [{header: cookie, secret: "kv:secret/team#cookie", format: "session={secret}"}]
  - id: plain
    hosts: [api.example]
    schemes: [http]
    private: [127.0.0.0/8]
  - id: other
    hosts: [other.example]
    private: [127.0.0.0/8]
  - id: watched
    hosts: [watched.example]
    paths: [/allowed]
    private: [127.0.0.0/8]
    observe: true
    credentials: [{header: authorization, secret: "vault:global/token"}]
profiles: {test: [api, basic, swap, open-path, missing, plain, other, watched]}
violations: {quarantine: [metadata_target]}
"""
NAMES: Final = (
    "api.example",
    "basic.example",
    "swap.example",
    "missing.example",
    "other.example",
    "watched.example",
)


def fields_of(head: bytes) -> dict[str, list[str]]:
    """The header fields of one recorded head, by their small names."""
    found: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        found.setdefault(name.lower(), []).append(value.strip())
    return found


@dataclass
class Talk:
    """One tunnel of one worker."""

    host: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, path: str = "/", *headers: str, method: str = "GET") -> Reply | None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode("latin-1"))
        return await read_reply(self.reader)


@dataclass
class CredentialWorld:
    harness: Harness
    secrets: SecretsInMemory
    secure: RecordingUpstream
    plain: RecordingUpstream
    heads: list[dict[str, list[str]]] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    async def open(self, host: str, credentials: str | None = None) -> Talk:
        reply, reader, writer = await self.harness.tunnel(f"{host}:443", credentials=credentials)
        assert reply is not None and reply.status == 200, reply
        return Talk(host, reader, writer)

    async def ask(self, host: str, path: str = "/", *headers: str) -> Reply | None:
        return await (await self.open(host)).ask(path, *headers)

    async def record(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        """Remember a head and the connection it came on; answer what the test wants."""
        self.heads.append(fields_of(head))
        self.places.append(id(writer))
        answer = self.replies.pop(0) if self.replies else b"HTTP/1.1 200 OK\r\n" + LENGTH
        writer.write(answer)
        await writer.drain()

    def everything_told(self) -> bytes:
        """All that the proxy wrote down."""
        files = [path for path in self.harness.directory.rglob("*") if path.is_file()]
        return b"".join(path.read_bytes() for path in files)


LENGTH: Final = b"Content-Length: 2\r\n\r\nok"


@asynccontextmanager
async def credential_world(
    directory: Path, monkeypatch: Any, policy: str = POLICY, **more: Any
) -> AsyncIterator[CredentialWorld]:
    ca = UpstreamCa.create(directory / "ca")
    secrets = more.pop("secrets", None) or SecretsInMemory(dict(SECRETS))
    issuer = more.pop("issuer", None) or ca
    certified = more.pop("certified", NAMES)
    hosts = f"127.0.0.1 {' '.join({*NAMES, *certified})}\n"
    async with (
        recording_upstream(issuer.server_context(*certified)) as secure,
        recording_upstream() as plain,
        proxy_harness(
            directory / "proxy", policy, hosts, ca.ca_file, secrets=secrets, **more
        ) as harness,
    ):
        ports = {80: plain.port, 443: secure.port}

        async def mapped(pinned: Any, port: int, **given: Any) -> Any:
            return await dial_pinned(pinned, ports[port], **given)

        monkeypatch.setattr(handler, "dial_pinned", mapped)
        world = CredentialWorld(harness, secrets, secure, plain)
        secure.respond = plain.respond = world.record
        yield world


async def ask_plain(world: CredentialWorld, host: str, path: str, *headers: str) -> Reply | None:
    """A request over plain http."""
    lines = [
        f"GET http://{host}{path} HTTP/1.1",
        f"Host: {host}",
        f"Proxy-Authorization: {basic()}",
        *headers,
    ]
    return await world.harness.send("\r\n".join([*lines, "", ""]).encode())
