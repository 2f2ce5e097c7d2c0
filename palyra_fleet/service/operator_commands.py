"""What operators may ask of the fleet. `actor` is the principal's name; it goes into the event log.

Mixed into `FleetService`. Every change is decided by the pure ledger and durable before it is
answered; listings read the ledger or the store and change nothing. Times: Unix ms.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable

from ulid import ULID

from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger import freezing
from palyra_fleet.ledger.decision import Decision, Detail, EventReason, LedgerEvent
from palyra_fleet.ledger.facts import lifecycle_state
from palyra_fleet.ledger.manager import Outcome
from palyra_fleet.ledger.wire_views import grant_view, lease_state, lease_view, worker_view
from palyra_fleet.ledger.worker_filter import WorkerFilter
from palyra_fleet.refusals import FleetReason, FleetRefusal, worker_unknown
from palyra_fleet.service.core import FleetCore
from palyra_fleet.signals.metrics import FleetState
from palyra_fleet.store.protocol import ChainBroken, StateUnusable, StoreFailed
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.freeze_models import FreezeRequest, FreezeView, UnfreezeRequest
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.lease_models import LeasesThat, LeaseView
from palyra_fleet.wire.reattest_models import ReattestRequest
from palyra_fleet.wire.traffic_models import TrafficView

MAX_LISTED = 1_000


class OperatorCommands(FleetCore):
    """Grants, workers, leases, evidence and the event log."""

    async def record_event(self, reason: EventReason, actor: str, detail: Detail) -> None:
        """Durable in the event log when this returns. For changes that the ledger does not hold."""

        async def act(now: int) -> None:
            await self._settle(Decision(now, events=(LedgerEvent(reason, actor, detail=detail),)))

        await self._locked(act)

    async def create_grant(self, actor: str, request: wire.GrantRequest) -> wire.GrantView:
        async def act(now: int) -> wire.GrantView:
            grant = WorkerApprovalGrant(
                grant_id=str(ULID.from_timestamp(now)),
                run_id=request.run_id,
                tool_name=request.tool_name,
                principal=request.principal,
                egress_profile=request.egress_profile,
                expires_at_unix_ms=now + request.ttl_ms,
                approved_by=actor,
                max_uses=request.max_uses,
                worker_id=request.worker_id,
                read_only=request.read_only,
            )
            decision = await self._settle(self._manager.create_grant(grant, actor, now))
            made = next(r for r in decision.records if isinstance(r, WorkerApprovalGrant))
            return grant_view(made)

        return await self._locked(act)

    async def withdraw_grant(self, actor: str, grant_id: str, reason: str) -> None:
        async def act(now: int) -> None:
            grant = await self._store.grant(grant_id)
            if grant is None:
                text = f"there is no grant '{grant_id}'"
                raise FleetRefusal(FleetReason.GRANT_UNKNOWN, text)
            await self._settle(self._manager.withdraw_grant(grant, actor, reason, now))

        await self._locked(act)

    async def grants(
        self, limit: int = MAX_LISTED, before: str | None = None
    ) -> tuple[wire.GrantView, ...]:
        """The newest grants, newest first; with `before` only those that are older than it."""
        try:
            found = await self._store.grants(_bounded(limit), before)
        except (StoreFailed, StateUnusable) as error:
            raise _unreadable(error) from error
        return tuple(grant_view(grant) for grant in found)

    def standing(self) -> FleetState:
        """How many workers are in which state, and how many leases live."""
        now, state = self._now(), self._manager.state
        workers = Counter(lifecycle_state(one, now).value for one in state.workers.values())
        return FleetState(
            workers, len(state.leases), now_unix_ms=now, waiting=state.placing.waiting
        )

    def traffic(self) -> TrafficView:
        """What the proxies reported of their traffic, by the minute and as last told."""
        enrolled = self._manager.state.enrolled
        proxies = {key.name for key in enrolled.values() if key.kind == "proxy" and not key.revoked}
        return self._traffic.view(self._now(), proxies)

    def traffic_mark(self) -> object:
        """Changes when a proxy counted anything."""
        return self._traffic.mark()

    async def leases(
        self, limit: int, before_fence: int | None = None, those: LeasesThat = LeasesThat.LIVE
    ) -> tuple[LeaseView, ...]:
        """Leases, newest first; with `before_fence` only those with a lower fence. Those that have
        ended are listed as long as the store keeps them."""
        await self._caught_up()
        if those is LeasesThat.LIVE:
            live = self._manager.state.leases.values()
            wanted = (one for one in live if before_fence is None or one.fence < before_fence)
            newest = heapq.nlargest(_bounded(limit), wanted, key=lambda lease: lease.fence)
            return tuple(lease_view(lease) for lease in newest)
        ended = those is LeasesThat.ENDED
        try:
            found = await self._store.leases(_bounded(limit), before_fence, ended=ended)
        except StoreFailed as error:
            raise _unreadable(error) from error
        return tuple(lease_view(lease) for lease in found)

    async def workers(self) -> tuple[wire.WorkerView, ...]:
        await self._caught_up()
        return tuple(self._worker_view(worker_id) for worker_id in self._manager.state.workers)

    async def workers_page(
        self, wanted: WorkerFilter, limit: int, before: str | None = None
    ) -> tuple[wire.WorkerView, ...]:
        """The workers that fit, the newest id first; with `before` only those with a lower id."""
        await self._caught_up()
        now, state = self._now(), self._manager.state
        found = (
            worker_id
            for worker_id, worker in state.workers.items()
            if (before is None or worker_id < before)
            and wanted.fits(worker, now, waits=state.placing.waits(worker_id))
        )
        return tuple(map(self._worker_view, heapq.nlargest(_bounded(limit), found)))

    async def worker(self, worker_id: str) -> wire.WorkerView:
        await self._caught_up()
        if worker_id not in self._manager.state.workers:
            raise FleetRefusal.of(worker_unknown(worker_id))
        return self._worker_view(worker_id)

    async def quarantine(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return await self._on_worker(
            worker_id, lambda now: self._manager.quarantine(worker_id, actor, reason, now)
        )

    async def release(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        """Takes evidence newer than the quarantine, with a new key."""
        return await self._on_worker(
            worker_id, lambda now: self._manager.release(worker_id, actor, reason, now)
        )

    async def reverify(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        """Clears failed work after newer evidence; releases nobody."""
        return await self._on_worker(
            worker_id, lambda now: self._manager.reverify(worker_id, actor, reason, now)
        )

    async def reattest(
        self, actor: str, worker_id: str, request: ReattestRequest
    ) -> wire.WorkerView:
        """Demands newer evidence, or that and a new key; the worker is told."""
        return await self._on_worker(
            worker_id,
            lambda now: self._manager.reattest(
                worker_id, request.new_key, request.within_ms, actor, request.reason, now
            ),
        )

    async def cordon(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return await self._on_worker(
            worker_id, lambda now: self._manager.cordon(worker_id, actor, reason, now)
        )

    async def uncordon(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return await self._on_worker(
            worker_id, lambda now: self._manager.uncordon(worker_id, actor, reason, now)
        )

    async def label(self, actor: str, worker_id: str, asked: LabelRequest) -> wire.WorkerView:
        """Gives and takes labels; what is so already changes nothing."""
        return await self._on_worker(
            worker_id,
            lambda now: self._manager.label(
                worker_id, asked.labels, asked.remove, actor, asked.reason, now
            ),
        )

    async def drain(
        self, actor: str, worker_id: str, reason: str, deadline_ms: int
    ) -> wire.WorkerView:
        """`deadline_ms` is a length of time; then a lease that is still held ends."""
        return await self._on_worker(
            worker_id,
            lambda now: self._manager.drain(worker_id, actor, reason, deadline_ms, now),
        )

    async def ban(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return await self._on_worker(
            worker_id, lambda now: self._manager.ban(worker_id, actor, reason, now)
        )

    async def evict(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        """Answers the worker as it was just before it was forgotten. Evidence that was begun before
        newer one was demanded of it is worth nothing to who comes as this worker next."""

        async def act(now: int) -> wire.WorkerView:
            outcome = self._manager.evict(worker_id, actor, reason, now)
            worker = self._manager.state.workers.get(worker_id)
            last = None if worker is None else self._worker_view(worker_id)
            await self._settle(outcome)
            if worker is not None and worker.demand is not None:
                self._nonces.forget_issued_before(worker.demand.asked_at_unix_ms)
            if last is None:
                raise FleetRefusal.of(worker_unknown(worker_id))
            return last

        return await self._locked(act)

    async def revoke_lease(self, actor: str, lease_id: str, reason: str) -> wire.LeaseState:
        async def act(now: int) -> wire.LeaseState:
            outcome = self._manager.revoke_lease(lease_id, actor, reason, now)
            decision = await self._settle(outcome)
            ended = next(r for r in decision.records if isinstance(r, WorkerLease))
            return lease_state(ended)

        return await self._locked(act)

    async def frozen(self) -> FreezeView:
        """What the kill switch, or a storm, holds now."""
        await self._caught_up()
        freeze = self._manager.state.freeze
        since = freeze.at_unix_ms if freeze.frozen else None
        return FreezeView(
            leases=freeze.frozen, egress=freeze.egress, by=freeze.by, since_unix_ms=since
        )

    async def freeze(self, actor: str, request: FreezeRequest) -> FreezeView:
        """The kill switch: durable, and on its way to every proxy, when this returns."""

        async def act(now: int) -> None:
            state = self._manager.state
            await self._settle(freezing.freeze(state, request.egress, actor, request.reason, now))

        await self._locked(act)
        return await self.frozen()

    async def unfreeze(self, actor: str, request: UnfreezeRequest) -> FreezeView:
        """After a freeze or a storm of quarantines: go on."""

        async def act(now: int) -> None:
            state, egress_only = self._manager.state, request.egress_only
            await self._settle(freezing.unfreeze(state, egress_only, actor, request.reason, now))

        await self._locked(act)
        return await self.frozen()

    async def violations(
        self, worker_id: str | None, limit: int, before: str | None = None
    ) -> tuple[wire.ViolationView, ...]:
        """The newest evidence first, or what is older than the one with the digest `before`."""
        try:
            found = await self._store.violations(worker_id, _bounded(limit), before)
        except StoreFailed as error:
            raise _unreadable(error) from error
        return tuple(
            wire.ViolationView(
                evidence_sha256=evidence.evidence_sha256,
                received_at_unix_ms=evidence.received_at_unix_ms,
                outcome=evidence.outcome,
                payload=wire.ViolationPayload.model_validate_json(evidence.payload),
            )
            for evidence in found
        )

    async def profiles_of(self, lease_ids: Iterable[str]) -> dict[str, str]:
        """The egress profile of each of these leases that the fleet gave, live or ended."""
        found: dict[str, str] = {}
        try:
            for lease_id in dict.fromkeys(lease_ids):
                live = self._manager.state.leases.get(lease_id)
                lease = live or await self._store.lease(lease_id)
                if lease is not None:
                    found[lease_id] = lease.egress_profile
        except StoreFailed as error:
            raise _unreadable(error) from error
        return found

    async def events(self, after_seq: int, limit: int) -> tuple[wire.EventView, ...]:
        try:
            return await self._store.events(after_seq, _bounded(limit))
        except StoreFailed as error:
            raise _unreadable(error) from error

    @property
    def last_event_seq(self) -> int:
        """The number of the last entry of the event log that is durable."""
        return self._log_end.seq

    async def log_goes_beyond(self, seq: int, within_s: float) -> None:
        """Return once the log goes beyond this entry, once readers are woken, or after the time."""
        await self._log_end.beyond(seq, within_s)

    def wake_log_readers(self) -> None:
        """Have everybody who waits for the log look whether they should."""
        self._log_end.wake()

    async def recent_events(
        self, worker_id: str | None, limit: int, before_seq: int | None = None
    ) -> tuple[wire.EventView, ...]:
        """The newest entries (before one of them), newest first, about one worker or all."""
        try:
            return await self._store.recent_events(worker_id, _bounded(limit), before_seq)
        except StoreFailed as error:
            raise _unreadable(error) from error

    async def verify_events(self) -> int:
        """Walk the whole hash chain; the number of entries. Refuses on a break."""
        try:
            return await self._store.verify_events()
        except ChainBroken as error:
            raise FleetRefusal(FleetReason.CHAIN_BROKEN, str(error)) from error
        except StoreFailed as error:
            raise _unreadable(error) from error

    async def _on_worker(self, worker_id: str, decide: Callable[[int], Outcome]) -> wire.WorkerView:
        async def act(now: int) -> wire.WorkerView:
            await self._settle(decide(now))
            return self._worker_view(worker_id)

        return await self._locked(act)

    def _worker_view(self, worker_id: str) -> wire.WorkerView:
        state = self._manager.state
        return worker_view(state.workers[worker_id], state.live_lease_of(worker_id), self._now())


def _bounded(limit: int) -> int:
    return max(0, min(limit, MAX_LISTED + 1))  # one more says whether there is more


def _unreadable(error: Exception) -> FleetRefusal:
    return FleetRefusal(FleetReason.STORE_UNAVAILABLE, f"the store cannot be read: {error}")
