"""A proxy whose rules meet servers in ways of their own, for tests of roots and client
certificates by rule.

`ledger.example` is certified by the corporate CA and demands a certificate of the CA of agents,
over HTTP/1.1 and HTTP/2. `open.example` is certified by the CA that stands for the public ones and
asks for nothing. What each server saw of its clients is recorded with each request.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.tls.server_tls import ServerTlsSettings, ServerTlsStore
from palyra_egress.proxy.tls.tls_material import CertificateFiles
from tests.fakes.client_certificates import common_name, demanding, issue_client
from tests.fakes.h2_upstream import H2Upstream, answer_hello, h2_upstream
from tests.fakes.h2_worker import h2_worker
from tests.fakes.proxy_harness import Harness, Reply, proxy_harness, read_reply
from tests.fakes.upstream import OK, RecordingUpstream, recording_upstream

POLICY: Final = """\
version: 1
name: upstream-tls
rules:
  - {{id: agent, hosts: [ledger.example], ports: [{ports}], paths: [/agent, /agent/**],
      private: [127.0.0.0/8], upstream_tls: {{roots: corp, client_certificate: agent}}}}
  - {{id: auditor, hosts: [ledger.example], ports: [{ports}], paths: [/auditor],
      private: [127.0.0.0/8], upstream_tls: {{roots: corp, client_certificate: auditor}}}}
  - {{id: stranger, hosts: [ledger.example], ports: [{ports}], paths: [/stranger],
      private: [127.0.0.0/8], upstream_tls: {{roots: corp, client_certificate: stranger}}}}
  - {{id: expired, hosts: [ledger.example], ports: [{ports}], paths: [/expired],
      private: [127.0.0.0/8], upstream_tls: {{roots: corp, client_certificate: expired}}}}
  - {{id: nobody, hosts: [ledger.example], ports: [{ports}], paths: [/nobody],
      private: [127.0.0.0/8], upstream_tls: {{roots: corp}}}}
  - {{id: usual, hosts: [ledger.example, open.example], ports: [{ports}], paths: [/usual],
      private: [127.0.0.0/8]}}
  - {{id: corp-only, hosts: [open.example], ports: [{ports}], paths: [/corp],
      private: [127.0.0.0/8], upstream_tls: {{roots: corp}}}}
  - {{id: shows-to-all, hosts: [open.example], ports: [{ports}], paths: [/shown],
      private: [127.0.0.0/8], upstream_tls: {{client_certificate: agent}}}}
  - {{id: watched, hosts: [watched.example], ports: [{ports}], paths: [/allowed], observe: true,
      private: [127.0.0.0/8], upstream_tls: {{client_certificate: agent}}}}
profiles:
  test: [agent, auditor, stranger, expired, nobody, usual, corp-only, shows-to-all, watched]
violations: {{quarantine: [metadata_target]}}
"""
HOSTS: Final = "127.0.0.1 ledger.example open.example watched.example\n"


@dataclass
class UpstreamTlsWorld:
    """`seen` are (path, who the server saw, which connection), in their order."""

    harness: Harness
    first: RecordingUpstream
    second: H2Upstream
    open: RecordingUpstream
    public: UpstreamCa
    corp: UpstreamCa
    agents: UpstreamCa
    files: dict[str, CertificateFiles]
    roots: Path
    seen: list[tuple[str, str | None, int]] = field(default_factory=list)

    @property
    def store(self) -> ServerTlsStore:
        return self.harness.proxy.enforcement.server_tls

    def authority(self, speaks: int = 1, host: str = "ledger.example") -> str:
        ports = {0: self.open.port, 1: self.first.port, 2: self.second.port}
        return f"{host}:{ports[speaks]}"

    async def ask(self, path: str, speaks: int = 1, host: str = "ledger.example") -> str:
        """The status, and the reason of a refusal, of one request to the server of this version by
        a worker that speaks the same."""
        authority = self.authority(speaks, host)
        if speaks == 2:
            async with h2_worker(self.harness, authority) as worker:
                answer = await worker.get(path)
                reason = dict(answer.fields).get(b"proxy-status", b"").decode()
                return f"{answer.status} {reason}"
        reply = await (await self.talk(authority))(path)
        return "cut" if reply is None else f"{reply.status} {reply.headers.get('proxy-status', '')}"

    async def talk(self, authority: str, **who: Any) -> Any:
        """Ask request after request over one tunnel."""
        _, reader, writer = await self.harness.tunnel(authority, **who)

        async def asked(path: str) -> Reply | None:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            return await read_reply(reader)

        return asked

    def verdict(self) -> dict[str, Any]:
        """The last one about a request."""
        return [one for one in self.harness.verdicts() if one["method"] != "CONNECT"][-1]

    @property
    def nothing_arrived(self) -> bool:
        return not (self.seen or self.first.received or self.open.received or self.second.streams)

    def everything_told(self) -> bytes:
        """All that the proxy wrote down in its own directory."""
        files = [path for path in self.harness.directory.rglob("*") if path.is_file()]
        return b"".join(path.read_bytes() for path in files)


def _record(world: UpstreamTlsWorld) -> None:
    async def first(head: bytes, writer: Any) -> None:
        path = head.split(b" ", 2)[1].decode()
        peer = common_name(writer.get_extra_info("peercert"))
        world.seen.append((path, peer, id(writer)))
        writer.write(OK)

    async def second(session: Any, stream: Any) -> None:
        peer = common_name(session.writer.get_extra_info("peercert"))
        world.seen.append((stream[":path"], peer, id(session)))
        await answer_hello(session, stream)

    world.first.respond = world.open.respond = first
    world.second.respond = second


@asynccontextmanager
async def upstream_tls_world(
    directory: Path, policy: str = POLICY, **settings: Any
) -> AsyncIterator[UpstreamTlsWorld]:
    public, corp, agents, others = (
        UpstreamCa.create(directory / name) for name in ("public", "corp", "agents", "others")
    )
    keys = directory / "keys"
    files = {
        "agent": issue_client(agents, "agent", keys),
        "auditor": issue_client(agents, "auditor", keys),
        "stranger": issue_client(others, "stranger", keys),
        "expired": issue_client(agents, "expired", keys, days=-1),
    }
    roots = directory / "corp.pem"
    roots.write_bytes(corp.ca_file.read_bytes())
    demands = [demanding(corp.server_context("ledger.example"), agents) for _ in range(2)]
    async with (
        recording_upstream(demands[0]) as first,
        h2_upstream(demands[1]) as second,
        recording_upstream(public.server_context("open.example", "watched.example")) as opened,
        proxy_harness(
            directory / "proxy",
            policy.format(ports=f"{first.port}, {second.port}, {opened.port}"),
            HOSTS,
            public.ca_file,
            server_tls=ServerTlsSettings({"corp": roots}, files),
            **settings,
        ) as harness,
    ):
        world = UpstreamTlsWorld(harness, first, second, opened, public, corp, agents, files, roots)
        _record(world)
        yield world
