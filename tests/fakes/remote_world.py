"""A real fleet served over mutual TLS, and paired machines that call it from another one."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from palyra_fleet.api.remote_listener import RemoteSettings
from palyra_fleet.client import OperatorClient, ProxyClient, RemoteFleet, WorkerClient
from palyra_fleet.client.device import DeviceClient
from palyra_fleet.identity.manager import IdentityManager, IdentitySettings
from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.identity.pairing_service import PairingService
from palyra_fleet.identity.records import CodeMethod
from palyra_fleet.node_agent.keeper import client_context
from palyra_fleet.node_agent.material import AgentHome, Certificate, NodeMaterial
from palyra_fleet.nodes.tls_port import FrontLimits
from palyra_fleet.nodes.worker_certificates import certificate_end_of
from palyra_fleet.principals.book import PrincipalBook, token_sha256
from palyra_fleet.serve import FleetServer
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import RegisterAnswer
from tests.fakes.fleet_world import FleetWorld, ProxyPen, WorkerPen, settings
from tests.fakes.identity_world import HERE, MASTER, QUIET, MemoryPairingStore, asking
from tests.fakes.node_world import ShiftedClock, key_pem
from tests.fakes.pairing_device import PairingDevice

TOKEN = "operator-token-of-the-tests-0123456789abcdef"


@dataclass(slots=True)
class Machine:
    """A paired machine: its keys, its certificate, and clients that use them."""

    device: PairingDevice
    certificate: Certificate
    roots_pem: str
    url: str

    @property
    def device_id(self) -> str:
        return self.device.device_id

    @property
    def key(self) -> SigningKey:
        """The key it paired with."""
        return SigningKey.of_seed(self.device.signing.private_bytes_raw())

    @property
    def fleet(self) -> RemoteFleet:
        return RemoteFleet(self.url, lambda: client_context(self.certificate, self.roots_pem))

    def as_worker(self, key: SigningKey) -> WorkerClient:
        return WorkerClient(self.fleet, key)

    def as_proxy(self, key: SigningKey | None = None) -> ProxyClient:
        return ProxyClient(self.fleet, key or self.key)

    def as_itself(self) -> DeviceClient:
        return DeviceClient(self.fleet)

    def store_in(self, directory: Path) -> AgentHome:
        """As `node install` leaves it."""
        home = AgentHome(directory)
        home.save(
            NodeMaterial(
                device_id=self.device_id,
                client_kind=self.device.client_kind,
                node_address="127.0.0.1:1",
                enrolment_address="127.0.0.1:1",
                trusted_roots_pem=self.roots_pem,
                signing_seed_hex=self.device.signing.private_bytes_raw().hex(),
                certificate=self.certificate,
            )
        )
        return home


@dataclass(slots=True)
class RemoteWorld:
    """The fleet: its service, its identity, and where other machines reach it."""

    fleet: FleetWorld
    identity: IdentityManager
    pairing: PairingService
    server: FleetServer
    clock: ShiftedClock
    principals: PrincipalBook
    paired: int = 0
    machines: list[Machine] = field(default_factory=list)

    @property
    def service(self) -> FleetService:
        return self.fleet.service

    @property
    def port(self) -> int:
        assert self.server.remote_port is not None
        return self.server.remote_port

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def operator(self) -> OperatorClient:
        return OperatorClient(self.server.admin_url, TOKEN)

    async def pair(self, kind: str = "node", device_id: str | None = None) -> Machine:
        self.paired += 1
        device = PairingDevice(device_id or f"01ARZ3NDEKTSV4RRFFQ69G{self.paired:04d}", kind)
        minted = await self.pairing.mint_code(CodeMethod.PIN, "operator")
        begun = await self.pairing.begin(asking(kind, CodeMethod.PIN, minted.code), HERE)
        done = await self.pairing.complete(device.completion(begun, minted.code), HERE)
        await self.pairing.decide(done.approval_id, approve=True, decided_by="operator")
        status = await self.pairing.status(device.poll(begun.session_id))
        certificate = Certificate(
            status.mtls_client_certificate_pem,
            key_pem(device.tls).decode(),
            status.cert_expires_at_unix_ms,
        )
        made = Machine(device, certificate, status.gateway_ca_certificate_pem, self.url)
        self.machines.append(made)
        return made

    async def worker_host(self) -> Machine:
        """A machine whose own key is enrolled as a launcher."""
        host = await self.pair("node")
        name = f"launcher-{host.device_id.lower()}"
        await self.service.enrol_device(
            "alice", "launcher", name, host.device_id, host.key.public_key
        )
        return host

    async def proxy_host(self) -> tuple[Machine, ProxyPen]:
        """A machine that took its place as a proxy, and the pen it writes with."""
        host = await self.pair("proxy")
        name = f"proxy-{host.device_id.lower()}"
        async with host.as_itself() as itself:
            await itself.enrol_proxy(name, host.key.public_key)
        return host, ProxyPen(name, host.key)

    async def register(
        self, host: Machine, worker: WorkerPen, proxy: ProxyPen, launcher: SigningKey | None = None
    ) -> RegisterAnswer:
        """A worker of that machine, bound to that proxy."""
        async with host.as_worker(worker.key) as client:
            nonce = (await client.issue_nonce()).nonce
            writer = FleetWorld(self.service, self.fleet.clock, launcher or host.key, proxy)
            answer = await client.register(
                (await self.fleet.registration(worker)).model_copy(
                    update={
                        "evidence": writer.evidence(worker, nonce),
                        "receipt": proxy.receipt(worker.key, nonce, self.clock()),
                    }
                )
            )
        worker.session_epoch, worker.beats = answer.session_epoch, 0
        return answer


@asynccontextmanager
async def remote_world(
    *, identity: IdentitySettings | None = None, limits: FrontLimits | None = None
) -> AsyncIterator[RemoteWorld]:
    """Served as in production; no reaper but the tests' own."""
    clock = ShiftedClock()
    with tempfile.TemporaryDirectory(prefix="fleet-") as directory:
        home = Path(directory)
        service = await FleetService.start(settings(home / "state"), clock)
        manager = await IdentityManager.start(
            home / "state", MASTER, identity or IdentitySettings(reap_every_ms=QUIET), clock
        )

        def gone(notice: RevocationNotice) -> None:
            if notice.device_gone:
                _ = spawn(service.device_gone(notice.device_id, notice.reason), "a device is gone")

        manager.subscribe(gone)
        service.tell_certificate_ends(partial(certificate_end_of, manager))
        remote = RemoteSettings(("127.0.0.1", 0), manager, clock)
        if limits is not None:
            remote = RemoteSettings(("127.0.0.1", 0), manager, clock, limits)
        principals = PrincipalBook.open(home / "principals.json", token_sha256(TOKEN))
        try:
            async with FleetServer.start(
                service,
                home / "run" / "fleet.sock",
                "127.0.0.1",
                0,
                principals,
                remote=remote,
                clock=clock,
            ) as server:
                world = FleetWorld(service, clock)  # type: ignore[arg-type]  # a clock as well
                await world.enrol()
                pairing = PairingService(manager, MemoryPairingStore())
                yield RemoteWorld(world, manager, pairing, server, clock, principals)
        finally:
            await manager.close()
            await service.close()
