"""What a worker may ask of the fleet, each request signed with the worker's own key.

The key is named by the proof of every request, so no call takes a worker id. Raises FleetProblem
when the fleet refuses and FleetUnavailable when it does not answer.
"""

import base64
from collections.abc import Callable

from palyra_fleet.client.credentials import ProofCredentials
from palyra_fleet.client.lists import OrderList
from palyra_fleet.client.transport import (
    DEFAULT_TIMEOUT_MS,
    FleetAddress,
    FleetClient,
    query_target,
)
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import (
    CompleteRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    LeaseAnswer,
    LeaseCommand,
    LeaseRequest,
    LeaseState,
    NonceAnswer,
    NonceRequest,
    RegisterAnswer,
    RegisterRequest,
)
from palyra_fleet.wire.placement_models import DeclineRequest, WorkerOrder


class WorkerClient(FleetClient):
    """The worker's calls."""

    def __init__(
        self,
        where: FleetAddress,
        key: SigningKey,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        clock: Callable[[], int] = now_unix_ms,
    ) -> None:
        super().__init__(where, ProofCredentials(key, clock), timeout_ms=timeout_ms)
        self._public_key = base64.b64encode(key.public_key).decode()
        self._where_to, self._patience_ms, self._clock = where, timeout_ms, clock

    def with_key(self, key: SigningKey) -> "WorkerClient":
        """Another client of the same fleet."""
        return WorkerClient(self._where_to, key, timeout_ms=self._patience_ms, clock=self._clock)

    async def issue_nonce(self) -> NonceAnswer:
        request = NonceRequest(public_key=self._public_key, purpose="register")
        return await self.call("POST", "/v1/attestation/nonce", NonceAnswer, request)

    async def register(self, request: RegisterRequest) -> RegisterAnswer:
        return await self.call("POST", "/v1/workers:register", RegisterAnswer, request)

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatAnswer:
        return await self.call("POST", "/v1/worker/heartbeat", HeartbeatAnswer, request)

    async def request_lease(self, request: LeaseRequest) -> LeaseAnswer:
        """A lost answer is asked for again: a lease whose secret nobody has serves nobody."""
        return await self.call("POST", "/v1/worker/leases", LeaseAnswer, request, once=True)

    async def decline_offer(self, offer_id: str, request: DeclineRequest) -> None:
        await self.send("POST", f"/v1/worker/offers/{offer_id}:decline", request)

    async def start_lease(self, lease_id: str, command: LeaseCommand) -> LeaseState:
        target = f"/v1/worker/leases/{lease_id}:start"
        return await self.call("POST", target, LeaseState, command, once=True)

    async def renew_lease(self, lease_id: str, command: LeaseCommand) -> LeaseState:
        return await self.call("POST", f"/v1/worker/leases/{lease_id}:renew", LeaseState, command)

    async def complete_lease(self, lease_id: str, request: CompleteRequest) -> LeaseState:
        target = f"/v1/worker/leases/{lease_id}:complete"
        return await self.call("POST", target, LeaseState, request, once=True)

    async def orders(self, after_seq: int, wait_ms: int) -> tuple[WorkerOrder, ...]:
        """Orders after `after_seq`; the fleet holds the answer back up to `wait_ms` for one."""
        target = query_target("/v1/worker/orders", after_seq=after_seq, wait_ms=wait_ms)
        answer = await self.call("GET", target, OrderList, extra_wait_ms=wait_ms)
        return answer.items
