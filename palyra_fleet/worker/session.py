"""WorkerSession: one registered worker with a fresh key, from attestation to the last heartbeat.

`open` gets a nonce, has the proxy sign a receipt over it, and registers with signed evidence.
From then on the session beats, listens for orders, proves itself again (`proving`), also with a new
key where the fleet demands one, and renews a lease it holds at half life. Whatever ends the run
early resolves `stopped`, once: an order, a quarantine, a newer session, a program that changed, or
*self-fencing*: no renewal or no proof came through before the end on the monotonic clock. The
session only says so; the runner ends the processes.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Self

from palyra_fleet.client import (
    FleetAddress,
    FleetError,
    FleetProblem,
    FleetUnavailable,
    WorkerClient,
)
from palyra_fleet.refusals import FleetReason
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import (
    ApprovalAsked,
    ArtifactTransportModel,
    CleanupReport,
    CompleteRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    HeldLease,
    LeaseAnswer,
    LeaseCommand,
    LeaseRequest,
    LeaseState,
    WorkspaceScopeModel,
)
from palyra_fleet.wire.placement_models import (
    DeclineRequest,
    OfferModel,
    OrderKind,
    WorkerOrder,
)
from palyra_fleet.worker.attester import Attester
from palyra_fleet.worker.launcher import (
    ArtifactChanged,
    EvidenceSource,
    EvidenceUnavailable,
    Measurement,
    WorkerIdentity,
)
from palyra_fleet.worker.lease_clock import LeaseClock
from palyra_fleet.worker.lease_in_hand import LeaseInHand
from palyra_fleet.worker.offer_box import OfferBox
from palyra_fleet.worker.proving import Proving
from palyra_fleet.worker.standing import Standing
from palyra_fleet.worker.stop import Stop, StopKind, state_is_quarantined, stop_for_problem
from palyra_fleet.worker.timekeeper import Alarm, LoopTime, Timekeeper

ORDERS_WAIT_MS: Final = 20_000
RETRY_AFTER_S: Final = 0.5
PROOFS_FOR_A_LEASE: Final = 3
"""How often the binding is proved anew for one lease: the proxy's policy may change meanwhile."""
_PROVE_FIRST: Final = frozenset({FleetReason.BINDING_STALE, FleetReason.REATTESTATION_DEMANDED})
_log = logging.getLogger(__name__)


class LeaseNotHeld(Exception):
    """A lease command without a lease: a mistake of the caller inside this program."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Where the fleet and the proxy are, who vouches for the worker, and whose time it is."""

    fleet: FleetAddress
    proxy_address: str
    launcher: EvidenceSource
    identity: WorkerIdentity
    timeout_ms: int = 10_000
    time: Timekeeper = field(default_factory=LoopTime)
    egress_enforced: bool = False


class WorkerSession:
    """A registered worker. Use as `async with await WorkerSession.open(...)`."""

    def __init__(self, standing: Standing, time: Timekeeper) -> None:
        self._standing = standing
        self._proving = Proving(standing, time, self._adopt, self.stop, self._obey)
        self._time = time
        self._beats = 0
        self._beating = asyncio.Lock()
        self._beat_after_s = standing.answer.heartbeat_within_ms / 2000
        self._offers = OfferBox()
        self._held: LeaseInHand | None = None
        self._attestation_end: Alarm | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, settings: SessionSettings, measured: Measurement) -> Self:
        """Attest and register. Raises FleetUnavailable, FleetProblem or ReceiptRefused."""
        key = SigningKey.generate()
        client = WorkerClient(
            settings.fleet,
            key,
            timeout_ms=settings.timeout_ms,
            clock=settings.time.wall_unix_ms,
        )
        attester = Attester(
            client,
            key,
            settings.proxy_address,
            settings.launcher,
            settings.identity,
            measured,
            settings.time,
            settings.timeout_ms,
            settings.egress_enforced,
        )
        try:
            standing = await Standing.open(attester)
            # orders of earlier sessions; what concerns this one comes after its first lease
            earlier = await client.orders(0, 0)
        except BaseException:
            await client.close()
            raise
        session = cls(standing, settings.time)
        session._begin(seen=max((order.seq for order in earlier), default=0))
        return session

    def __repr__(self) -> str:
        return f"WorkerSession({self.worker_id}, epoch {self._standing.answer.session_epoch})"

    @property
    def worker_id(self) -> str:
        return self._standing.answer.worker_id

    @property
    def good_until_s(self) -> float:
        """When it is fenced unless it proves itself anew, on the forward clock."""
        return self._standing.life.fence_at_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop beating and listening. A lease still held is left to the fleet's reaper."""
        await self._let_go()
        if self._attestation_end is not None:
            self._attestation_end.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.stopped.cancel()
        await self._standing.close()

    def stop(self, stop: Stop) -> None:
        """Say that the run must end. Only the first reason counts."""
        if not self.stopped.done():
            self.stopped.set_result(stop)

    async def take_lease(
        self,
        run_id: str,
        scope: WorkspaceScopeModel,
        ttl_ms: int,
        required_capabilities: tuple[str, ...] = (),
        transport: ArtifactTransportModel | None = None,
        approval: ApprovalAsked | None = None,
    ) -> LeaseAnswer:
        """Ask for the lease of `run_id`; it must be started before it is used. Where the fleet
        wants the binding to the proxy proved anew, that is done first. With `approval` an approval
        rule may approve the run where no operator has. Raises what `open` does."""
        order = LeaseRequest(
            session_epoch=0,
            run_id=run_id,
            ttl_ms=ttl_ms,
            required_capabilities=required_capabilities,
            workspace_scope=scope,
            artifact_transport=transport or ArtifactTransportModel(),
            approval=approval,
        )
        return await self._take_bound(order)

    async def next_offer(self) -> OfferModel:
        """Wait for a run: say so at once and with every heartbeat, until the fleet offers one. It
        is to be taken or declined before it ends."""
        self._offers.waits = True
        await self._beat_once()
        return await self._offers.next()

    async def take_offer(self, offer: OfferModel, scope: WorkspaceScopeModel) -> LeaseAnswer:
        """Ask for the lease of the run that was offered, with a workspace of one's own. As
        `take_lease` in all else."""
        return await self._take_bound(
            LeaseRequest(
                session_epoch=0,
                run_id=offer.run_id,
                ttl_ms=offer.ttl_ms,
                required_capabilities=offer.required_capabilities,
                workspace_scope=scope,
                artifact_transport=offer.artifact_transport,
                offer_id=offer.offer_id,
            )
        )

    async def decline(self, offer: OfferModel, why: str) -> None:
        """Give an offer back. One that has ended, or that the fleet does not hear of, ends by
        itself."""
        with contextlib.suppress(FleetError):
            await self._standing.speak(
                lambda epoch: self._standing.client.decline_offer(
                    offer.offer_id, DeclineRequest(session_epoch=epoch, reason=why)
                )
            )

    async def stop_waiting(self, why: str) -> None:
        """Say that no run is waited for, and give back what was offered meanwhile."""
        self._offers.waits = False
        await self._beat_once()
        offer = self._offers.take()
        if offer is not None:
            await self.decline(offer, why)

    async def _take_bound(self, order: LeaseRequest) -> LeaseAnswer:
        """Take a lease; prove the binding to the proxy anew where the fleet wants that first."""
        for attempt in range(PROOFS_FOR_A_LEASE):
            try:
                return await self._take(order)
            except FleetProblem as problem:
                if problem.reason not in _PROVE_FIRST:
                    raise
            await self._time.sleep(attempt * RETRY_AFTER_S)
            try:
                await self._proving.prove_again()
            except ArtifactChanged as changed:
                raise EvidenceUnavailable(str(changed)) from changed
        return await self._take(order)

    async def _take(self, order: LeaseRequest) -> LeaseAnswer:
        asked_s, wall = self._time.now_s(), self._time.wall_unix_ms()
        lease = await self._standing.speak(partial(self._ask, order))
        life = LeaseClock.starting(
            expires_at_unix_ms=lease.expires_at_unix_ms, wall_unix_ms=wall, now_s=asked_s
        )
        await self._let_go()
        self._held = LeaseInHand(lease, life, self._time, self._fence)
        return lease

    async def _ask(self, order: LeaseRequest, epoch: int) -> LeaseAnswer:
        return await self._standing.client.request_lease(
            order.model_copy(update={"session_epoch": epoch})
        )

    async def start_lease(self, ttl_ms: int | None = None) -> None:
        """Tell the fleet that the run begins, and renew from now on (by `ttl_ms` each time)."""
        held = self._require_lease()
        lease = held.answer
        await self._standing.speak(
            lambda epoch: self._standing.client.start_lease(
                lease.lease_id, LeaseCommand(session_epoch=epoch, fence=lease.fence)
            )
        )
        renew = partial(self._standing.speak, partial(self._renew, lease, ttl_ms))
        held.keep_renewing(renew, self._obey, self.stopped)

    async def complete_lease(self, cleanup: CleanupReport) -> LeaseState:
        """Hand the lease back with what was really cleaned up."""
        lease = self._require_lease().answer
        await self._let_go()
        return await self._standing.speak(
            lambda epoch: self._standing.client.complete_lease(
                lease.lease_id,
                CompleteRequest(session_epoch=epoch, fence=lease.fence, cleanup=cleanup),
            )
        )

    def _begin(self, seen: int) -> None:
        self._adopt()
        for loop, name in (
            (self._keep_beating(), "heartbeat"),
            (self._keep_listening(seen), "orders"),
            (self._proving.keep(self.stopped), "proof"),
        ):
            self._tasks.append(spawn(loop, f"{name} {self.worker_id}"))

    async def _keep_beating(self) -> None:
        while True:
            await self._time.sleep(self._beat_after_s)
            await self._beat_once()

    async def _beat_once(self) -> None:
        async with self._beating:  # the fleet takes no beat that is older than the last
            self._beats += 1
            try:
                epoch, answer = await self._standing.speak(self._beat)
            except FleetUnavailable:
                self._beat_after_s = min(self._beat_after_s, RETRY_AFTER_S)
                return
            except FleetProblem as problem:
                self._obey(problem)
                return
            self._beat_after_s = answer.heartbeat_within_ms / 2000
        if state_is_quarantined(answer.state):
            self.stop(Stop(StopKind.QUARANTINED, "the worker is quarantined"))
        self._stop_if_held(answer.stop_leases, "the fleet does not hold this lease")
        if epoch == self._standing.answer.session_epoch:  # else it speaks of older evidence
            self._proving.hear(answer.demanded)

    async def _beat(self, epoch: int) -> tuple[int, HeartbeatAnswer]:
        request = HeartbeatRequest(
            session_epoch=epoch,
            seq=self._beats,
            held_leases=self._held_leases(),
            waits=self._offers.waits,
        )
        return epoch, await self._standing.client.heartbeat(request)

    def _adopt(self) -> None:
        """Take over what the fleet said to a proof: state, end, a lease that must be shorter."""
        life = self._standing.life
        if self._attestation_end is not None:
            self._attestation_end.cancel()
        self._attestation_end = self._time.call_at(life.fence_at_s, self._fence)
        if self._held is not None:
            self._held.shorten_to(life.end_s)
        if state_is_quarantined(self._standing.answer.state):
            self.stop(Stop(StopKind.QUARANTINED, "the worker is quarantined"))

    async def _keep_listening(self, seen: int) -> None:
        while True:
            try:
                orders = await self._standing.speak(partial(self._orders, seen))
            except FleetUnavailable:
                await self._time.sleep(RETRY_AFTER_S)
                continue
            except FleetProblem as problem:
                self._obey(problem)
                await self._time.sleep(RETRY_AFTER_S)
                continue
            # a quarantine also stops the lease; of the two, the quarantine is the reason
            for order in sorted(orders, key=lambda one: one.kind is not OrderKind.QUARANTINED):
                seen = max(seen, order.seq)
                self._follow(order)
            if any(order.kind is OrderKind.REATTEST for order in orders):
                await self._beat_once()  # what is demanded now is in the answer

    async def _orders(self, seen: int, _epoch: int) -> tuple[WorkerOrder, ...]:
        return await self._standing.client.orders(seen, ORDERS_WAIT_MS)

    def _follow(self, order: WorkerOrder) -> None:
        match order.kind:
            case OrderKind.QUARANTINED:
                self.stop(Stop(StopKind.QUARANTINED, order.reason))
            case OrderKind.STOP_LEASE:
                ended = () if order.lease_id is None else (order.lease_id,)
                self._stop_if_held(ended, order.reason)
            case OrderKind.EGRESS_SUSPENDED:
                _log.warning("no network for now: the fleet does not hear this worker's proxy")
            case OrderKind.EGRESS_RESUMED:
                _log.warning("the network is back: the fleet hears this worker's proxy again")
            case OrderKind.OFFERED:
                if order.offer is not None:
                    self._offers.put(order.offer)
            case OrderKind.REATTEST:
                pass  # see `_keep_listening`

    async def _renew(self, lease: LeaseAnswer, ttl_ms: int | None, epoch: int) -> LeaseState:
        command = LeaseCommand(session_epoch=epoch, fence=lease.fence, ttl_ms=ttl_ms)
        return await self._standing.client.renew_lease(lease.lease_id, command)

    async def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await held.let_go()

    def _fence(self) -> None:
        """A lease or the attestation ends now: say which, and why it could not go on."""
        held, life = self._held, self._standing.life
        if held is None or held.clock.end_s >= life.fence_at_s:
            why = self._proving.problem or "no answer in time"
            detail = f"this worker's attestation ended and could not be renewed: {why}"
        elif held.at_its_end:
            detail = "the lease ended, and the fleet makes it no longer: its approval is over"
        else:
            detail = "the lease ended and no renewal came through"
        self.stop(Stop(StopKind.FENCED, detail))

    def _obey(self, problem: FleetProblem) -> None:
        stop = stop_for_problem(problem)
        if stop is not None:
            self.stop(stop)

    def _stop_if_held(self, lease_ids: tuple[str, ...], detail: str) -> None:
        if self._held is not None and self._held.answer.lease_id in lease_ids:
            self.stop(Stop(StopKind.LEASE_STOPPED, detail))

    def _held_leases(self) -> tuple[HeldLease, ...]:
        return () if self._held is None else (self._held.named,)

    def _require_lease(self) -> LeaseInHand:
        if self._held is None:
            raise LeaseNotHeld("no lease is held")
        return self._held
