"""FleetService: the fleet's one asynchronous face (being built: every command still refuses)."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, Never

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.settings import FleetSettings
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.dsse import DsseEnvelope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key belongs to."""

    kind: Literal["worker", "proxy"]
    id: str
    public_key: bytes
    session_epoch: int = 0


def _not_built() -> Never:
    raise FleetRefusal(FleetReason.CLOSED, "this part of the fleet is not built yet")


class FleetService:
    """The fleet."""

    @classmethod
    async def start(
        cls, settings: FleetSettings, clock: Callable[[], int] = now_unix_ms
    ) -> "FleetService":
        _not_built()

    @property
    def epoch(self) -> int:
        _not_built()

    def caller_by_key(self, key_sha256: str) -> Caller | None:
        _not_built()

    async def close(self) -> None:
        _not_built()

    async def issue_nonce(self, request: wire.NonceRequest) -> wire.NonceAnswer:
        _not_built()

    async def register(self, request: wire.RegisterRequest) -> wire.RegisterAnswer:
        _not_built()

    async def heartbeat(
        self, worker_id: str, request: wire.HeartbeatRequest
    ) -> wire.HeartbeatAnswer:
        _not_built()

    async def request_lease(self, worker_id: str, request: wire.LeaseRequest) -> wire.LeaseAnswer:
        _not_built()

    async def start_lease(
        self, worker_id: str, lease_id: str, request: wire.LeaseCommand
    ) -> wire.LeaseState:
        _not_built()

    async def renew_lease(
        self, worker_id: str, lease_id: str, request: wire.LeaseCommand
    ) -> wire.LeaseState:
        _not_built()

    async def complete_lease(
        self, worker_id: str, lease_id: str, request: wire.CompleteRequest
    ) -> wire.LeaseState:
        _not_built()

    async def orders(
        self, worker_id: str, after_seq: int, wait_ms: int
    ) -> tuple[wire.WorkerOrder, ...]:
        _not_built()

    async def accept_violation(self, proxy_id: str, envelope: DsseEnvelope) -> wire.ViolationAnswer:
        _not_built()

    def view(self) -> AsyncIterator[wire.ViewMessage]:
        _not_built()

    async def enrol_launcher(self, actor: str, request: wire.EnrolKeyRequest) -> None:
        _not_built()

    async def enrol_proxy(self, actor: str, request: wire.EnrolKeyRequest) -> None:
        _not_built()

    async def add_reference_values(self, actor: str, values: wire.ReferenceValues) -> None:
        _not_built()

    async def create_grant(self, actor: str, request: wire.GrantRequest) -> wire.GrantView:
        _not_built()

    async def withdraw_grant(self, actor: str, grant_id: str, reason: str) -> None:
        _not_built()

    async def grants(self) -> tuple[wire.GrantView, ...]:
        _not_built()

    async def workers(self) -> tuple[wire.WorkerView, ...]:
        _not_built()

    async def worker(self, worker_id: str) -> wire.WorkerView:
        _not_built()

    async def quarantine(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        _not_built()

    async def release(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        _not_built()

    async def reverify(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        _not_built()

    async def cordon(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        _not_built()

    async def uncordon(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        _not_built()

    async def drain(
        self, actor: str, worker_id: str, reason: str, deadline_ms: int
    ) -> wire.WorkerView:
        _not_built()

    async def ban(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        _not_built()

    async def evict(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        _not_built()

    async def revoke_lease(self, actor: str, lease_id: str, reason: str) -> wire.LeaseState:
        _not_built()

    async def violations(self, worker_id: str | None, limit: int) -> tuple[wire.ViolationView, ...]:
        _not_built()

    async def events(self, after_seq: int, limit: int) -> tuple[wire.EventView, ...]:
        _not_built()

    async def verify_events(self) -> int:
        _not_built()

    def health(self) -> dict[str, str]:
        _not_built()
