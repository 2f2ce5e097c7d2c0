"""A real FleetService with real keys: a launcher, proxies, workers, and a clock that tests move."""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.settings.file import SettingsFile
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.store.protocol import FleetStore
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.dsse import (
    ATTESTATION_TYPE,
    RECEIPT_TYPE,
    VIOLATION_TYPE,
    DsseEnvelope,
    seal,
)
from palyra_fleet.wire.keys import SigningKey
from tests.fakes.ledger_world import ulid
from tests.fakes.memory_fleet_store import MemoryFleetStore

START_UNIX_MS = 1_800_000_000_000
IMAGE, BUILD, ARTIFACT = "1" * 64, "2" * 64, "3" * 64
SCOPE = wire.WorkspaceScopeModel(workspace_root="/job/run", allowed_paths=("/job/run/in",))
CLEAN = wire.CleanupReport(workspace_removed=True, processes_ended=True, secrets_removed=True)
DIRTY = wire.CleanupReport(workspace_removed=True, processes_ended=False, secrets_removed=True)


@dataclass(slots=True)
class Clock:
    """Unix milliseconds; only tests move it."""

    now_unix_ms: int = START_UNIX_MS

    def __call__(self) -> int:
        return self.now_unix_ms

    def forward(self, ms: int) -> None:
        self.now_unix_ms += ms


def public(key: SigningKey) -> str:
    return base64.b64encode(key.public_key).decode()


@dataclass(slots=True)
class ProxyPen:
    """Writes a proxy's receipts and its chain of evidence."""

    name: str = "proxy-1"
    key: SigningKey = field(default_factory=SigningKey.generate)
    seq: int = 0
    last_sha256: str = "0" * 64

    def receipt(
        self, worker_key: SigningKey, nonce: str, at: int, /, **changes: Any
    ) -> DsseEnvelope:
        payload = wire.ReceiptPayload.model_validate(
            {
                "proxy_id": self.name,
                "worker_key_sha256": worker_key.thumbprint,
                "policy_digest": "policy",
                "nonce": nonce,
                "at_unix_ms": at,
                **changes,
            }
        )
        return seal(self.key, RECEIPT_TYPE, payload.model_dump_json().encode())

    def violation(self, lease: wire.LeaseAnswer, at: int, /, **changes: Any) -> DsseEnvelope:
        """The next evidence of the chain; `changes` spoil fields."""
        payload = wire.ViolationPayload.model_validate(
            {
                "proxy_id": self.name,
                "seq": self.seq + 1,
                "previous_sha256": self.last_sha256,
                "worker_id": lease.worker_id,
                "lease_id": lease.lease_id,
                "fence": lease.fence,
                "reason": "egress.address_private",
                "consequence": "quarantine",
                "rule_id": "rule-1",
                "policy_file": "policy.yaml",
                "policy_line": 7,
                "policy_digest": "policy",
                "fingerprint": "f" * 64,
                "target": "10.0.0.1:443",
                "decision_id": ulid(self.seq + 1),
                "at_unix_ms": at,
                **changes,
            }
        )
        content = payload.model_dump_json().encode()
        self.seq, self.last_sha256 = payload.seq, hashlib.sha256(content).hexdigest()
        return seal(self.key, VIOLATION_TYPE, content)


@dataclass(slots=True)
class WorkerPen:
    """A worker with its key, as a launcher would describe it."""

    worker_id: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    session_epoch: int = 0
    beats: int = 0


@dataclass(slots=True)
class FleetWorld:
    """A started service whose launcher, proxy and reference values are enrolled."""

    service: FleetService
    clock: Clock
    launcher: SigningKey = field(default_factory=SigningKey.generate)
    proxy: ProxyPen = field(default_factory=ProxyPen)
    launcher_name: str = "launcher-1"

    async def enrol(self) -> None:
        launcher = wire.EnrolKeyRequest(name=self.launcher_name, public_key=public(self.launcher))
        await self.service.enrol_launcher("alice", launcher)
        proxy = wire.EnrolKeyRequest(name=self.proxy.name, public_key=public(self.proxy.key))
        await self.service.enrol_proxy("alice", proxy)
        values = wire.ReferenceValues(
            image_digests_sha256=(IMAGE,),
            build_digests_sha256=(BUILD,),
            artifact_digests_sha256=(ARTIFACT,),
        )
        await self.service.add_reference_values("alice", values)

    async def nonce(self, key: SigningKey) -> str:
        request = wire.NonceRequest(public_key=public(key), purpose="register")
        return (await self.service.issue_nonce(request)).nonce

    def evidence(self, worker: WorkerPen, nonce: str, /, **changes: Any) -> DsseEnvelope:
        now = self.clock()
        payload = wire.AttestationPayload.model_validate(
            {
                "worker_id": worker.worker_id,
                "image_digest_sha256": IMAGE,
                "build_digest_sha256": BUILD,
                "artifact_digest_sha256": ARTIFACT,
                "egress_proxy_attested": True,
                "supported_capabilities": (),
                "sdk_protocol_version": 1,
                "wit_abi_version": "palyra-worker-abi/v1",
                "issued_at_unix_ms": now,
                "expires_at_unix_ms": now + 3_600_000,
                "nonce": nonce,
                "key_sha256": worker.key.thumbprint,
                "evidence_kind": "launcher",
                "evidence_identity": f"unit-{worker.worker_id}",
                **changes,
            }
        )
        return seal(self.launcher, ATTESTATION_TYPE, payload.model_dump_json().encode())

    async def registration(self, worker: WorkerPen, /, **changes: Any) -> wire.RegisterRequest:
        nonce = await self.nonce(worker.key)
        return wire.RegisterRequest(
            public_key=public(worker.key),
            evidence=self.evidence(worker, nonce, **changes),
            receipt=self.proxy.receipt(worker.key, nonce, self.clock()),
        )

    async def register(self, worker: WorkerPen) -> wire.RegisterAnswer:
        answer = await self.service.register(await self.registration(worker))
        worker.session_epoch, worker.beats = answer.session_epoch, 0
        return answer

    async def beat(self, worker: WorkerPen, *held: wire.LeaseAnswer) -> wire.HeartbeatAnswer:
        worker.beats += 1
        leases = tuple(wire.HeldLease(lease_id=a.lease_id, fence=a.fence) for a in held)
        request = wire.HeartbeatRequest(
            session_epoch=worker.session_epoch, seq=worker.beats, held_leases=leases
        )
        return await self.service.heartbeat(worker.worker_id, request)

    async def grant(self, run_id: str, ttl_ms: int = 3_600_000) -> wire.GrantView:
        request = wire.GrantRequest(
            run_id=run_id,
            tool_name="tool",
            principal="principal",
            egress_profile="profile",
            ttl_ms=ttl_ms,
        )
        return await self.service.create_grant("alice", request)

    async def ask(self, worker: WorkerPen, run_id: str, ttl_ms: int = 60_000) -> wire.LeaseAnswer:
        request = wire.LeaseRequest(
            session_epoch=worker.session_epoch,
            run_id=run_id,
            ttl_ms=ttl_ms,
            workspace_scope=SCOPE,
        )
        return await self.service.request_lease(worker.worker_id, request)

    async def lease(self, worker: WorkerPen, run_id: str, ttl_ms: int = 60_000) -> wire.LeaseAnswer:
        await self.grant(run_id)
        return await self.ask(worker, run_id, ttl_ms)

    async def complete(
        self, worker: WorkerPen, lease: wire.LeaseAnswer, report: wire.CleanupReport = CLEAN
    ) -> wire.LeaseState:
        request = wire.CompleteRequest(
            session_epoch=worker.session_epoch, fence=lease.fence, cleanup=report
        )
        return await self.service.complete_lease(worker.worker_id, lease.lease_id, request)


def settings(
    state_dir: Path, policy: WorkerFleetPolicy | None = None, file: SettingsFile | None = None
) -> FleetSettings:
    """The reaper of a test is the test itself: `service.reap()`."""
    return FleetSettings(
        state_dir,
        policy or WorkerFleetPolicy(),
        reap_every_ms=3_600_000,
        file=file or SettingsFile(),
    )


@asynccontextmanager
async def fleet_world(
    store: FleetStore | None = None,
    policy: WorkerFleetPolicy | None = None,
    file: SettingsFile | None = None,
    state_dir: Path = Path("/nowhere"),
) -> AsyncIterator[FleetWorld]:
    """A world on a memory store, or on the given one."""
    clock = Clock()
    used = store or MemoryFleetStore()
    service = await FleetService.start_on(used, settings(state_dir, policy, file), clock)
    try:
        world = FleetWorld(service, clock)
        await world.enrol()
        yield world
    finally:
        await service.close()
