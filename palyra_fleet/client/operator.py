"""What an operator may do, over the admin listener, with a bearer token.

The command line calls these through `asyncio.run`. Every change takes the reason for it, which
ends up in the fleet's event log.
"""

from pathlib import Path

from palyra_fleet.client.credentials import TokenCredentials
from palyra_fleet.client.devices import DeviceCalls
from palyra_fleet.client.enrolments import EnrolmentCalls
from palyra_fleet.client.join_tokens import JoinTokenCalls
from palyra_fleet.client.lists import (
    ApprovalRuleList,
    EventList,
    EventsVerified,
    GrantList,
    LeaseList,
    ViolationList,
    WorkerList,
)
from palyra_fleet.client.nodes import NodeCalls
from palyra_fleet.client.placements import PlacementCalls
from palyra_fleet.client.policies import PolicyCalls
from palyra_fleet.client.principals import PrincipalCalls
from palyra_fleet.client.releases import ReleaseCalls
from palyra_fleet.client.snapshots import SnapshotCalls
from palyra_fleet.client.transport import DEFAULT_TIMEOUT_MS, query_target
from palyra_fleet.wire.approval_models import ApprovalRuleView
from palyra_fleet.wire.freeze_models import FreezeRequest, FreezeView, UnfreezeRequest
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.lease_models import LeasesThat, LeaseView
from palyra_fleet.wire.models import (
    DrainRequest,
    EventView,
    GrantRequest,
    GrantView,
    LeaseState,
    ReasonRequest,
    ViolationView,
    WorkerView,
)
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.wire.traffic_models import TrafficView
from palyra_fleet.wire.worker_actions import WorkerAction


class OperatorClient(
    EnrolmentCalls,
    NodeCalls,
    DeviceCalls,
    PrincipalCalls,
    JoinTokenCalls,
    ReleaseCalls,
    PlacementCalls,
    SnapshotCalls,
    PolicyCalls,
):
    """The operator's calls. `where` is the admin listener's URL, such as `http://127.0.0.1:7741`,
    or the operators' socket of a fleet of this account."""

    def __init__(
        self, where: Path | str, token: str, *, timeout_ms: int = DEFAULT_TIMEOUT_MS
    ) -> None:
        super().__init__(where, TokenCredentials(token), timeout_ms=timeout_ms)
        if isinstance(where, Path):
            self._base_url = "http://localhost"  # the admin listener answers to no other name

    async def create_grant(self, request: GrantRequest) -> GrantView:
        return await self.call("POST", "/v1/grants", GrantView, request, once=True)

    async def grants(self) -> tuple[GrantView, ...]:
        """All of them, the newest first."""
        return await self.every("/v1/grants", GrantList)

    async def withdraw_grant(self, grant_id: str, reason: str) -> None:
        await self.send("POST", f"/v1/grants/{grant_id}:withdraw", ReasonRequest(reason=reason))

    async def workers(
        self,
        state: str | None = None,
        eligibility: str | None = None,
        attestor: str | None = None,
        capability: str | None = None,
        labels: tuple[str, ...] = (),
        *,
        waits: bool | None = None,
        demanded: bool | None = None,
    ) -> tuple[WorkerView, ...]:
        """All of them that are as asked for, the newest id first. `labels`: `KEY` or `KEY=VALUE`,
        all of which they must have. `waits`: those that wait for a run, or those that do not;
        `demanded`: whether newer evidence is demanded of them."""
        return await self.every(
            "/v1/workers",
            WorkerList,
            state=state,
            eligibility=eligibility,
            attestor=attestor,
            capability=capability,
            waits=None if waits is None else str(waits).lower(),
            label=labels,
            demanded=None if demanded is None else str(demanded).lower(),
        )

    async def worker(self, worker_id: str) -> WorkerView:
        return await self.call("GET", f"/v1/workers/{worker_id}", WorkerView)

    async def act(self, action: WorkerAction, worker_id: str, reason: str) -> WorkerView:
        target = f"/v1/workers/{worker_id}:{action}"
        return await self.call("POST", target, WorkerView, ReasonRequest(reason=reason))

    async def label(self, worker_id: str, asked: LabelRequest) -> WorkerView:
        """Give and take labels; the same again changes nothing."""
        return await self.call("POST", f"/v1/workers/{worker_id}:label", WorkerView, asked)

    async def reattest(self, worker_id: str, request: ReattestRequest) -> WorkerView:
        """Demand newer evidence of it."""
        return await self.call("POST", f"/v1/workers/{worker_id}:reattest", WorkerView, request)

    async def drain(self, worker_id: str, reason: str, deadline_ms: int) -> WorkerView:
        request = DrainRequest(reason=reason, deadline_ms=deadline_ms)
        return await self.call("POST", f"/v1/workers/{worker_id}:drain", WorkerView, request)

    async def approval_rules(self) -> tuple[ApprovalRuleView, ...]:
        """Those in force, in the order of their file, and what each has given."""
        return (await self.call("GET", "/v1/approval-rules", ApprovalRuleList)).items

    async def leases(
        self, most: int | None = None, those: LeasesThat = LeasesThat.LIVE
    ) -> tuple[LeaseView, ...]:
        """Leases, newest first."""
        return await self.every("/v1/leases", LeaseList, most, state=those)

    async def revoke_lease(self, lease_id: str, reason: str) -> LeaseState:
        target = f"/v1/leases/{lease_id}:revoke"
        return await self.call("POST", target, LeaseState, ReasonRequest(reason=reason))

    async def frozen(self) -> FreezeView:
        return await self.call("GET", "/v1/fleet/freeze", FreezeView)

    async def freeze(self, reason: str, egress: bool = False) -> FreezeView:
        """No new leases, and with `egress` nothing through any proxy."""
        request = FreezeRequest(reason=reason, egress=egress)
        return await self.call("POST", "/v1/fleet:freeze", FreezeView, request)

    async def unfreeze(self, reason: str, egress_only: bool = False) -> FreezeView:
        """All goes on; with `egress_only` new leases stay frozen."""
        request = UnfreezeRequest(reason=reason, egress_only=egress_only)
        return await self.call("POST", "/v1/fleet:unfreeze", FreezeView, request)

    async def violations(
        self, worker_id: str | None = None, limit: int = 100
    ) -> tuple[ViolationView, ...]:
        target = query_target("/v1/violations", worker_id=worker_id, limit=limit)
        return (await self.call("GET", target, ViolationList)).items

    async def traffic(self) -> TrafficView:
        """What passed at the proxies in the last three hours, and as each told last."""
        return await self.call("GET", "/v1/traffic", TrafficView)

    async def events(
        self, after_seq: int = 0, limit: int = 100, wait_s: int = 0
    ) -> tuple[EventView, ...]:
        """What comes after an entry, oldest first; where nothing does yet, within `wait_s` seconds
        (at most 60). After `last_seq` is what came after this client's own changes."""
        target = query_target(
            "/v1/events", after_seq=after_seq, limit=limit, wait=wait_s if wait_s else None
        )
        return (await self.call("GET", target, EventList, extra_wait_ms=wait_s * 1000)).items

    async def verify_events(self) -> int:
        """How many entries the whole event chain has; FleetProblem if it is broken."""
        return (await self.call("POST", "/v1/events:verify", EventsVerified)).entries
