"""WorkerSession: one registered worker with a fresh key, from attestation to the last heartbeat.

`open` gets a nonce, has the proxy sign a receipt over it, and registers with signed evidence.
From then on the session beats, listens for orders and, once a lease is held, renews it at half
life. Whatever ends the run early resolves `stopped`, once: an order, a quarantine, a newer session,
or *self-fencing*: no renewal came through before the lease's end on the monotonic clock. The
session only says so; the runner ends the processes.
"""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from palyra_fleet.client import FleetProblem, FleetUnavailable, WorkerClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import (
    CleanupReport,
    CompleteRequest,
    HeartbeatRequest,
    HeldLease,
    LeaseAnswer,
    LeaseCommand,
    LeaseRequest,
    LeaseState,
    OrderKind,
    RegisterAnswer,
    RegisterRequest,
    WorkerOrder,
    WorkspaceScopeModel,
)
from palyra_fleet.worker.launcher import Launcher, Measurement, WorkerIdentity
from palyra_fleet.worker.lease_clock import LeaseClock
from palyra_fleet.worker.receipt import fetch_receipt
from palyra_fleet.worker.stop import Stop, StopKind, state_is_quarantined, stop_for_problem

ORDERS_WAIT_MS: Final = 20_000
RETRY_AFTER_S: Final = 0.5


class LeaseNotHeld(Exception):
    """A lease command without a lease: a mistake of the caller inside this program."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Where the fleet and the proxy are, and who vouches for the worker."""

    socket_path: Path
    proxy_address: str
    launcher: Launcher
    identity: WorkerIdentity
    timeout_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class _Held:
    answer: LeaseAnswer
    clock: LeaseClock


class WorkerSession:
    """A registered worker. Use as `async with await WorkerSession.open(...)`."""

    def __init__(
        self, client: WorkerClient, registered: RegisterAnswer, clock: Callable[[], int]
    ) -> None:
        self._client = client
        self._registered = registered
        self._clock = clock
        self._beats = 0
        self._held: _Held | None = None
        self._fence: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(
        cls,
        settings: SessionSettings,
        measured: Measurement,
        clock: Callable[[], int] = now_unix_ms,
    ) -> Self:
        """Attest and register. Raises FleetUnavailable, FleetProblem or ReceiptRefused."""
        key = SigningKey.generate()
        client = WorkerClient(settings.socket_path, key, timeout_ms=settings.timeout_ms)
        try:
            nonce = (await client.issue_nonce()).nonce
            receipt = await fetch_receipt(
                settings.proxy_address, key, nonce, timeout_ms=settings.timeout_ms
            )
            evidence = settings.launcher.evidence(
                settings.identity,
                measured,
                nonce=nonce,
                worker_key_sha256=key.thumbprint,
                egress_proxy_attested=True,
                now_unix_ms=clock(),
            )
            public_key = base64.b64encode(key.public_key).decode()
            registered = await client.register(
                RegisterRequest(public_key=public_key, evidence=evidence, receipt=receipt)
            )
            # orders of earlier sessions; what concerns this one comes after its first lease
            earlier = await client.orders(0, 0)
        except BaseException:
            await client.close()
            raise
        session = cls(client, registered, clock)
        session._begin(seen=max((order.seq for order in earlier), default=0))
        return session

    def __repr__(self) -> str:
        return f"WorkerSession({self.worker_id}, epoch {self._registered.session_epoch})"

    @property
    def worker_id(self) -> str:
        return self._registered.worker_id

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
        self._let_go()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.stopped.cancel()
        await self._client.close()

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
    ) -> LeaseAnswer:
        """Ask for the lease of `run_id`; it must be started before it is used."""
        request = LeaseRequest(
            session_epoch=self._registered.session_epoch,
            run_id=run_id,
            ttl_ms=ttl_ms,
            required_capabilities=required_capabilities,
            workspace_scope=scope,
        )
        asked_s, wall = self._now_s(), self._clock()
        lease = await self._client.request_lease(request)
        life = LeaseClock.starting(
            expires_at_unix_ms=lease.expires_at_unix_ms, wall_unix_ms=wall, now_s=asked_s
        )
        self._hold(_Held(lease, life))
        return lease

    async def start_lease(self, ttl_ms: int | None = None) -> None:
        """Tell the fleet that the run begins, and renew from now on (by `ttl_ms` each time)."""
        held = self._require_lease()
        await self._client.start_lease(held.answer.lease_id, self._command(held, None))
        self._tasks.append(spawn(self._keep_renewing(ttl_ms), f"renew {held.answer.lease_id}"))

    async def complete_lease(self, cleanup: CleanupReport) -> LeaseState:
        """Hand the lease back with what was really cleaned up."""
        held = self._require_lease()
        self._let_go()
        request = CompleteRequest(
            session_epoch=self._registered.session_epoch, fence=held.answer.fence, cleanup=cleanup
        )
        return await self._client.complete_lease(held.answer.lease_id, request)

    def _begin(self, seen: int) -> None:
        if state_is_quarantined(self._registered.state):
            self.stop(Stop(StopKind.QUARANTINED, "the worker is quarantined"))
        self._tasks.append(spawn(self._keep_beating(), f"heartbeat {self.worker_id}"))
        self._tasks.append(spawn(self._keep_listening(seen), f"orders {self.worker_id}"))

    async def _keep_beating(self) -> None:
        wait_s = self._registered.heartbeat_within_ms / 2000
        while True:
            await asyncio.sleep(wait_s)
            self._beats += 1
            request = HeartbeatRequest(
                session_epoch=self._registered.session_epoch,
                seq=self._beats,
                held_leases=self._held_leases(),
            )
            try:
                answer = await self._client.heartbeat(request)
            except FleetUnavailable:
                wait_s = min(wait_s, RETRY_AFTER_S)
                continue
            except FleetProblem as problem:
                self._obey(problem)
                continue
            wait_s = answer.heartbeat_within_ms / 2000
            if state_is_quarantined(answer.state):
                self.stop(Stop(StopKind.QUARANTINED, "the worker is quarantined"))
            self._stop_if_held(answer.stop_leases, "the fleet does not hold this lease")

    async def _keep_listening(self, seen: int) -> None:
        while True:
            try:
                orders = await self._client.orders(seen, ORDERS_WAIT_MS)
            except FleetUnavailable:
                await asyncio.sleep(RETRY_AFTER_S)
                continue
            except FleetProblem as problem:
                self._obey(problem)
                await asyncio.sleep(RETRY_AFTER_S)
                continue
            # a quarantine also stops the lease; of the two, the quarantine is the reason
            for order in sorted(orders, key=lambda one: one.kind is not OrderKind.QUARANTINED):
                seen = max(seen, order.seq)
                self._follow(order)

    def _follow(self, order: WorkerOrder) -> None:
        match order.kind:
            case OrderKind.QUARANTINED:
                self.stop(Stop(StopKind.QUARANTINED, order.reason))
            case OrderKind.STOP_LEASE:
                ended = () if order.lease_id is None else (order.lease_id,)
                self._stop_if_held(ended, order.reason)

    async def _keep_renewing(self, ttl_ms: int | None) -> None:
        while (held := self._held) is not None and not self.stopped.done():
            await asyncio.sleep(held.clock.renew_after_s(self._now_s()))
            asked_s, wall = self._now_s(), self._clock()
            try:
                state = await self._client.renew_lease(
                    held.answer.lease_id, self._command(held, ttl_ms)
                )
            except FleetUnavailable:
                continue
            except FleetProblem as problem:
                self._obey(problem)
                continue
            if self._held is not held:
                return
            later = LeaseClock.starting(
                expires_at_unix_ms=state.expires_at_unix_ms, wall_unix_ms=wall, now_s=asked_s
            )
            self._hold(_Held(held.answer, held.clock.extended(later)))

    def _hold(self, held: _Held) -> None:
        self._let_go()
        self._held = held
        self._fence = asyncio.get_running_loop().call_at(
            held.clock.fence_at_s,
            self.stop,
            Stop(StopKind.FENCED, "the lease ended and no renewal came through"),
        )

    def _let_go(self) -> None:
        self._held = None
        if self._fence is not None:
            self._fence.cancel()
            self._fence = None

    def _obey(self, problem: FleetProblem) -> None:
        stop = stop_for_problem(problem)
        if stop is not None:
            self.stop(stop)

    def _stop_if_held(self, lease_ids: tuple[str, ...], detail: str) -> None:
        if self._held is not None and self._held.answer.lease_id in lease_ids:
            self.stop(Stop(StopKind.LEASE_STOPPED, detail))

    def _held_leases(self) -> tuple[HeldLease, ...]:
        if self._held is None:
            return ()
        lease = self._held.answer
        return (HeldLease(lease_id=lease.lease_id, fence=lease.fence),)

    def _command(self, held: _Held, ttl_ms: int | None) -> LeaseCommand:
        return LeaseCommand(
            session_epoch=self._registered.session_epoch, fence=held.answer.fence, ttl_ms=ttl_ms
        )

    def _require_lease(self) -> _Held:
        if self._held is None:
            raise LeaseNotHeld("no lease is held")
        return self._held

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
