"""The real fleet on its real listeners; a launcher and a proxy are enrolled over HTTP."""

import base64
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ulid import ULID

from palyra_fleet.client import OperatorClient, ProxyClient
from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.principals.book import PrincipalBook
from palyra_fleet.serve import FleetServer, load_or_create_operator_token, open_principals
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import EnrolKeyRequest, ReferenceValues
from palyra_fleet.worker.launcher import Launcher, Measurement, WorkerIdentity, measure
from palyra_fleet.worker.session import SessionSettings
from palyra_fleet.worker.timekeeper import LoopTime, Timekeeper
from tests.fakes.receipt_proxy import ReceiptProxy, receipt_proxy


@dataclass(frozen=True, slots=True)
class RealFleet:
    service: FleetService
    server: FleetServer
    operator: OperatorClient
    token: str
    launcher_key: SigningKey
    proxy_key: SigningKey
    proxy: ReceiptProxy
    home: Path
    time: Timekeeper
    principals: PrincipalBook

    def session(self, worker_id: str | None = None) -> SessionSettings:
        made = worker_id or str(ULID())
        return SessionSettings(
            fleet=self.server.socket_path,
            proxy_address=self.proxy.address,
            launcher=Launcher(self.launcher_key),
            identity=WorkerIdentity(made, f"worker:{made}"),
            time=self.time,
        )

    def as_proxy(self) -> ProxyClient:
        return ProxyClient(self.server.socket_path, self.proxy_key, clock=self.time.wall_unix_ms)

    async def accept(self, program: str) -> Measurement:
        """Enrol what `program` measures as."""
        measured = measure(program)
        await self.operator.add_reference_values(
            ReferenceValues(
                image_digests_sha256=(measured.image_digest_sha256,),
                build_digests_sha256=(measured.build_digest_sha256,),
                artifact_digests_sha256=(measured.artifact.digest_sha256,),
            )
        )
        return measured


def enrolment(name: str, key: SigningKey) -> EnrolKeyRequest:
    return EnrolKeyRequest(name=name, public_key=base64.b64encode(key.public_key).decode())


@asynccontextmanager
async def real_fleet(
    policy: WorkerFleetPolicy | None = None,
    time: Timekeeper | None = None,
    issuers: Sequence[TrustedIssuer] = (),
) -> AsyncIterator[RealFleet]:
    """Served as in production. `time` is that of fleet, proxy and workers alike."""
    kept = time or LoopTime()
    launcher_key, proxy_key = SigningKey.generate(), SigningKey.generate()
    with tempfile.TemporaryDirectory(prefix="fleet-") as directory:
        home = Path(directory)
        token = load_or_create_operator_token(home / "operator.token")
        principals = open_principals(home, token)
        settings = FleetSettings(home / "state", policy or WorkerFleetPolicy())
        service = await FleetService.start(settings, kept.wall_unix_ms)
        try:
            async with (
                FleetServer.start(
                    service,
                    home / "run" / "fleet.sock",
                    "127.0.0.1",
                    0,
                    principals,
                    operators_socket=home / "run" / "admin.sock",
                    issuers=issuers,
                    clock=kept.wall_unix_ms,
                ) as server,
                OperatorClient(server.admin_url, token) as operator,
                receipt_proxy(proxy_key, kept.wall_unix_ms) as proxy,
            ):
                await operator.enrol_launcher(enrolment("launcher-1", launcher_key))
                await operator.enrol_proxy(enrolment("proxy-1", proxy_key))
                yield RealFleet(
                    service,
                    server,
                    operator,
                    token,
                    launcher_key,
                    proxy_key,
                    proxy,
                    home,
                    kept,
                    principals,
                )
        finally:
            await service.close()
