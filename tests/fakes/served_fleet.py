"""A fleet service behind its real listeners, with callers of every kind ready to call it."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from palyra_fleet.client import OperatorClient, ProxyClient, WorkerClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.principals.book import Principal, PrincipalBook, token_sha256
from palyra_fleet.serve import FleetServer
from palyra_fleet.traces.spans import Spans
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.principal_models import Role
from tests.fakes.fleet_service import FakeFleetService

TOKEN = "operator-token-of-the-tests-0123456789abcdef"
TOKENS = {role: f"token-of-a-{role}-of-the-tests-0123456789abcdef" for role in Role}
"""The tokens of principals that hold one role each and are named for it."""


@dataclass(frozen=True, slots=True)
class ServedFleet:
    """The fake fleet, served. `worker_key` and `proxy_key` are known to it."""

    service: FakeFleetService
    server: FleetServer
    worker_key: SigningKey
    proxy_key: SigningKey
    worker_id: str
    principals: PrincipalBook

    @property
    def socket_path(self) -> Path:
        return self.server.socket_path

    @property
    def admin_url(self) -> str:
        return self.server.admin_url

    def as_worker(self, key: SigningKey | None = None) -> WorkerClient:
        return WorkerClient(self.socket_path, key or self.worker_key)

    def as_proxy(self, key: SigningKey | None = None) -> ProxyClient:
        return ProxyClient(self.socket_path, key or self.proxy_key)

    def as_operator(self, token: str = TOKEN) -> OperatorClient:
        return OperatorClient(self.admin_url, token)


@asynccontextmanager
async def served_fleet(
    *,
    body_within_ms: int = 10_000,
    view_write_within_ms: int = 5_000,
    spans: Spans | None = None,
    nodes: NodeOperations | None = None,
    clock: Callable[[], int] = now_unix_ms,
) -> AsyncIterator[ServedFleet]:
    """Serve a fake fleet on a socket in a short-lived directory and a free loopback port."""
    service = FakeFleetService(clock)
    worker_key, proxy_key = SigningKey.generate(), SigningKey.generate()
    worker = service.add_worker(worker_key.public_key)
    service.proxies["proxy-1"] = proxy_key.public_key
    with tempfile.TemporaryDirectory(prefix="fleet-") as directory:
        principals = PrincipalBook.open(Path(directory) / "principals.json", token_sha256(TOKEN))
        for role, token in TOKENS.items():
            principals.create(Principal(f"{role}-1", frozenset({role}), token_sha256(token)))
        async with FleetServer.start(
            service,
            Path(directory) / "run" / "fleet.sock",
            "127.0.0.1",
            0,
            principals,
            clock=clock,
            body_within_ms=body_within_ms,
            view_write_within_ms=view_write_within_ms,
            spans=spans,
            nodes=nodes,
        ) as server:
            yield ServedFleet(service, server, worker_key, proxy_key, worker.worker_id, principals)
        await service.close()
