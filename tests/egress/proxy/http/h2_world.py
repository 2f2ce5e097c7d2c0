"""A proxy with two servers behind it for the tests of HTTP/2: one speaks it, one HTTP/1.1 only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from palyra_egress.demo.upstream_ca import UpstreamCa
from tests.fakes.h2_upstream import H2Upstream, h2_upstream
from tests.fakes.h2_worker import H2Worker, h2_worker
from tests.fakes.proxy_harness import Harness, Injection, proxy_harness
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY: Final = """\
version: 1
name: http2
rules:
  - id: api
    hosts: [api.example]
    ports: [{ports}]
    methods: [GET, HEAD, POST, PUT]
    paths: [/x, /x/**, /pkg.Service/**]
    private: [127.0.0.0/8]
profiles:
  test: [api]
violations:
  quarantine: [metadata_target, private_target]
"""
HOSTS: Final = "127.0.0.1 api.example\n"
NAMES: Final = ("api.example",)


@dataclass
class Http2World:
    """`second` speaks HTTP/2, `first` HTTP/1.1 and records raw bytes."""

    harness: Harness
    first: RecordingUpstream
    second: H2Upstream
    ca: UpstreamCa

    def authority(self, *, speaks: int) -> str:
        return f"api.example:{self.second.port if speaks == 2 else self.first.port}"

    def worker(self, *, speaks: int = 2, cls: type[H2Worker] = H2Worker, **more: Any) -> Any:
        """A worker whose tunnel leads to the server of this version."""
        return h2_worker(self.harness, self.authority(speaks=speaks), cls=cls, **more)

    def transfers(self) -> list[dict[str, Any]]:
        return [entry for entry in self.harness.audit() if entry["kind"] == "transfer"]

    def nothing_arrived(self) -> None:
        assert self.second.streams == []
        assert bytes(self.first.received) == b""


@asynccontextmanager
async def http2_world(
    directory: Path,
    policy: str = POLICY,
    inject: Injection | None = None,
    protocols: tuple[str, ...] = ("h2",),
    **settings: Any,
) -> AsyncIterator[Http2World]:
    ca = UpstreamCa.create(directory / "ca")
    async with (
        recording_upstream(ca.server_context(*NAMES)) as first,
        h2_upstream(ca.server_context(*NAMES), protocols) as second,
        proxy_harness(
            directory / "proxy",
            policy.format(ports=f"{first.port}, {second.port}"),
            HOSTS,
            ca.ca_file,
            inject=inject,
            **settings,
        ) as harness,
    ):
        yield Http2World(harness, first, second, ca)
