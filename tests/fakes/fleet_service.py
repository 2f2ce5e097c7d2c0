"""A small fleet in memory with the face of FleetService, for tests of what stands in front of it.

It checks what a caller of the real one would notice (keys, epochs, fences, who is quarantined), and
has no storage, deadlines or chains. `refuse_with` and `fail_with` make the next command fail.
"""

import asyncio
import base64
import contextlib
import hashlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from ulid import ULID

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.ledger.decision import Detail, EventReason
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.fleet_service import Caller, FleetService
from palyra_fleet.service.log_end import LogEnd
from palyra_fleet.service.origin import note_written
from palyra_fleet.signals.counts import FleetCounts
from palyra_fleet.signals.metrics import FleetState
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.dsse import ATTESTATION_TYPE, RECEIPT_TYPE, DsseEnvelope, open_envelope
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.placement_models import OrderKind, WorkerOrder
from palyra_fleet.wire.view_models import ViewMessage
from tests.fakes.fake_worker import NO_DIGEST, FakeWorker, view_of
from tests.fakes.no_join_tokens import NoJoinTokens
from tests.fakes.no_policies import NoPolicies
from tests.fakes.no_release_requests import NoReleaseRequests
from tests.fakes.no_snapshots import NoSnapshots
from tests.fakes.remembered_freeze import RemembersFreeze
from tests.fakes.what_operators_read import ReadByOperators


class FakeFleetService(
    NoSnapshots,
    NoJoinTokens,
    NoPolicies,
    NoReleaseRequests,
    RemembersFreeze,
    ReadByOperators,
    FleetService,
):
    """The fake. Everything it keeps is open to tests."""

    def __init__(self, clock: Callable[[], int] = now_unix_ms) -> None:
        self.clock = clock
        self.heartbeat_within_ms = 60_000
        self.renews = True
        self.longest_ttl_ms = 3_600_000
        self.attested_for_ms: int | None = None
        self.before_register_answer: Callable[[], Awaitable[None]] | None = None
        self.known: dict[str, FakeWorker] = {}
        self.proxies: dict[str, bytes] = {}
        self.launchers: dict[str, bytes] = {}
        self.made_grants: dict[str, wire.GrantView] = {}
        self.log: list[wire.EventView] = []
        self.evidence: list[tuple[str, DsseEnvelope]] = []
        self.reference = wire.ReferenceValues()
        self.refuse_with: FleetRefusal | None = None
        self.fail_with: Exception | None = None
        self.view_messages: asyncio.Queue[ViewMessage | None] = asyncio.Queue()
        self.view_ended = asyncio.Event()
        self.orders_asked: asyncio.Queue[str] = asyncio.Queue()
        self.renewed: asyncio.Queue[str] = asyncio.Queue()
        self.beaten: asyncio.Queue[str] = asyncio.Queue()
        self.beats_asked: asyncio.Queue[str] = asyncio.Queue()
        self.checks = {"store": "ok"}
        self.raised: dict[str, str] = {}
        self.calls: list[str] = []
        self.counts = FleetCounts()
        self._changed = asyncio.Condition()
        self._log_end = LogEnd()

    @property
    def epoch(self) -> int:
        return 1

    async def close(self) -> None:
        await self.view_messages.put(None)

    def add_worker(self, public_key: bytes, worker_id: str | None = None) -> FakeWorker:
        worker = FakeWorker(worker_id or str(ULID()), public_key)
        self.known[worker.worker_id] = worker
        return worker

    def caller_by_key(self, key_sha256: str) -> Caller | None:
        for worker in self.known.values():
            if thumbprint_sha256(worker.public_key) == key_sha256:
                return Caller("worker", worker.worker_id, worker.public_key, worker.session_epoch)
        for name, key in self.proxies.items():
            if thumbprint_sha256(key) == key_sha256:
                return Caller("proxy", name, key)
        return None

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_with is not None:
            raise self.fail_with
        if self.refuse_with is not None:
            raise self.refuse_with

    def _worker(self, worker_id: str) -> FakeWorker:
        if worker_id not in self.known:
            raise FleetRefusal(FleetReason.WORKER_UNKNOWN, f"worker '{worker_id}' is unknown")
        return self.known[worker_id]

    def _note(self, actor: str, reason: str, worker_id: str | None, why: str) -> None:
        previous = self.log[-1].sha256 if self.log else NO_DIGEST
        note_written(len(self.log) + 1)
        self.log.append(
            wire.EventView(
                seq=len(self.log) + 1,
                at_unix_ms=self.clock(),
                reason=reason,
                actor=actor,
                worker_id=worker_id,
                lease_id=None,
                detail={"why": why},
                previous_sha256=previous,
                sha256=hashlib.sha256((previous + reason + why).encode()).hexdigest(),
            )
        )
        self._log_end.grown_by(1)

    async def _order(self, worker: FakeWorker, kind: OrderKind, reason: str) -> None:
        lease_id = worker.lease.lease_id if worker.lease else None
        seq = len(worker.orders) + 1
        order = WorkerOrder(seq=seq, kind=kind, lease_id=lease_id, reason=reason)
        worker.orders.append(order)
        async with self._changed:
            self._changed.notify_all()

    async def issue_nonce(self, request: wire.NonceRequest) -> wire.NonceAnswer:
        self._enter("issue_nonce")
        nonce = secrets.token_urlsafe(32)
        return wire.NonceAnswer(nonce=nonce, expires_at_unix_ms=self.clock() + 60_000)

    async def register(
        self, request: wire.RegisterRequest, device_id: str | None = None
    ) -> wire.RegisterAnswer:
        del device_id
        self._enter("register")
        key = base64.b64decode(request.public_key)
        launcher = next(iter(self.launchers.values()))
        proxy = next(iter(self.proxies.values()))
        evidence = wire.AttestationPayload.model_validate_json(
            open_envelope(request.evidence, ATTESTATION_TYPE, launcher)
        )
        receipt = wire.ReceiptPayload.model_validate_json(
            open_envelope(request.receipt, RECEIPT_TYPE, proxy)
        )
        ours = {evidence.key_sha256, receipt.worker_key_sha256, thumbprint_sha256(key)}
        if len(ours) != 1 or evidence.nonce != receipt.nonce:
            raise FleetRefusal(FleetReason.KEY_MISMATCH, "the evidence speaks of another key")
        known = self.known.get(evidence.worker_id)
        worker = known or self.add_worker(key, evidence.worker_id)
        worker.public_key = key
        worker.session_epoch += 1
        until = evidence.expires_at_unix_ms
        if self.attested_for_ms is not None:
            until = self.clock() + self.attested_for_ms
        answer = wire.RegisterAnswer(
            worker_id=worker.worker_id,
            session_epoch=worker.session_epoch,
            state=worker.state,
            heartbeat_within_ms=self.heartbeat_within_ms,
            attested_until_unix_ms=until,
        )
        if self.before_register_answer is not None:
            await self.before_register_answer()
        return answer

    async def heartbeat(
        self, worker_id: str, request: wire.HeartbeatRequest
    ) -> wire.HeartbeatAnswer:
        self._enter("heartbeat")
        self.beats_asked.put_nowait(worker_id)
        worker = self._worker(worker_id)
        if request.session_epoch != worker.session_epoch:
            raise FleetRefusal(FleetReason.SESSION_STALE, "a newer session exists")
        worker.beats.append(request)
        self.beaten.put_nowait(worker_id)
        held = worker.lease.lease_id if worker.lease else None
        stop = tuple(one.lease_id for one in request.held_leases if one.lease_id != held)
        return wire.HeartbeatAnswer(
            state=worker.state, heartbeat_within_ms=self.heartbeat_within_ms, stop_leases=stop
        )

    async def request_lease(self, worker_id: str, request: wire.LeaseRequest) -> wire.LeaseAnswer:
        self._enter("request_lease")
        worker = self._worker(worker_id)
        if all(grant.run_id != request.run_id for grant in self.made_grants.values()):
            raise FleetRefusal(FleetReason.NO_GRANT, "there is no grant for this run")
        ttl_ms = min(request.ttl_ms, self.longest_ttl_ms)
        worker.lease = wire.LeaseAnswer(
            lease_id=str(ULID()),
            fence=7,
            worker_id=worker_id,
            run_id=request.run_id,
            egress_profile="default",
            expires_at_unix_ms=self.clock() + ttl_ms,
            egress_secret=secrets.token_urlsafe(32),
        )
        return worker.lease

    def _lease(self, worker_id: str, lease_id: str, fence: int) -> wire.LeaseAnswer:
        lease = self._worker(worker_id).lease
        if lease is None or lease.lease_id != lease_id:
            raise FleetRefusal(FleetReason.LEASE_UNKNOWN, "no such lease")
        if lease.fence != fence:
            raise FleetRefusal(FleetReason.STALE_FENCE, "the fence is stale")
        return lease

    async def start_lease(
        self, worker_id: str, lease_id: str, request: wire.LeaseCommand
    ) -> wire.LeaseState:
        self._enter("start_lease")
        lease = self._lease(worker_id, lease_id, request.fence)
        return wire.LeaseState(
            lease_id=lease_id, state="busy", expires_at_unix_ms=lease.expires_at_unix_ms
        )

    async def renew_lease(
        self, worker_id: str, lease_id: str, request: wire.LeaseCommand
    ) -> wire.LeaseState:
        self._enter("renew_lease")
        lease = self._lease(worker_id, lease_id, request.fence)
        self.renewed.put_nowait(lease_id)
        later = self.clock() + (request.ttl_ms or 0) if self.renews else lease.expires_at_unix_ms
        return wire.LeaseState(
            lease_id=lease_id,
            state="busy",
            expires_at_unix_ms=max(later, lease.expires_at_unix_ms),
        )

    async def complete_lease(
        self, worker_id: str, lease_id: str, request: wire.CompleteRequest
    ) -> wire.LeaseState:
        self._enter("complete_lease")
        lease = self._lease(worker_id, lease_id, request.fence)
        worker = self._worker(worker_id)
        worker.cleanups.append(request.cleanup)
        worker.lease = None
        return wire.LeaseState(
            lease_id=lease_id, state="completed", expires_at_unix_ms=lease.expires_at_unix_ms
        )

    async def orders(
        self, worker_id: str, after_seq: int, wait_ms: int, _: Callable[[], bool]
    ) -> tuple[WorkerOrder, ...]:
        self._enter("orders")
        self.orders_asked.put_nowait(worker_id)
        worker = self._worker(worker_id)

        def found() -> tuple[WorkerOrder, ...]:
            return tuple(order for order in worker.orders if order.seq > after_seq)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1000), self._changed:
                await self._changed.wait_for(found)
        return found()

    async def accept_violation(self, proxy_id: str, envelope: DsseEnvelope) -> wire.ViolationAnswer:
        self._enter("accept_violation")
        duplicate = (proxy_id, envelope) in self.evidence
        self.evidence.append((proxy_id, envelope))
        return wire.ViolationAnswer(accepted_seq=1, outcome="recorded", duplicate=duplicate)

    async def view(self, proxy_id: str, heard: object = None) -> AsyncIterator[ViewMessage]:
        del proxy_id, heard
        self._enter("view")
        try:
            while (message := await self.view_messages.get()) is not None:
                yield message
        finally:
            self.view_ended.set()

    async def enrol_launcher(self, actor: str, request: wire.EnrolKeyRequest) -> None:
        self._enter("enrol_launcher")
        self.launchers[request.name] = base64.b64decode(request.public_key)

    async def enrol_proxy(self, actor: str, request: wire.EnrolKeyRequest) -> None:
        self._enter("enrol_proxy")
        self.proxies[request.name] = base64.b64decode(request.public_key)

    async def add_reference_values(self, actor: str, values: wire.ReferenceValues) -> None:
        self._enter("add_reference_values")
        self.reference = values

    async def record_event(self, reason: EventReason, actor: str, detail: Detail) -> None:
        self._enter("record_event")
        self._note(actor, reason, None, str(detail.get("why", "")))

    async def create_grant(self, actor: str, request: wire.GrantRequest) -> wire.GrantView:
        self._enter("create_grant")
        grant = wire.GrantView(
            grant_id=str(ULID()),
            run_id=request.run_id,
            tool_name=request.tool_name,
            principal=request.principal,
            egress_profile=request.egress_profile,
            expires_at_unix_ms=self.clock() + request.ttl_ms,
            approved_by=actor,
            uses=0,
            max_uses=1,
            withdrawn=False,
        )
        self.made_grants[grant.grant_id] = grant
        return grant

    async def withdraw_grant(self, actor: str, grant_id: str, reason: str) -> None:
        self._enter("withdraw_grant")
        if self.made_grants.pop(grant_id, None) is None:
            raise FleetRefusal(FleetReason.GRANT_UNKNOWN, "no such grant")

    async def grants(
        self, limit: int = 1000, before: str | None = None
    ) -> tuple[wire.GrantView, ...]:
        self._enter("grants")
        older = [id for id in self.made_grants if before is None or id < before]
        return tuple(self.made_grants[id] for id in sorted(older, reverse=True)[:limit])

    async def workers(self) -> tuple[wire.WorkerView, ...]:
        self._enter("workers")
        return tuple(map(view_of, self.known.values()))

    async def workers_page(
        self, wanted: object, limit: int, before: str | None = None
    ) -> tuple[wire.WorkerView, ...]:
        self._enter("workers")
        every = sorted((id for id in self.known if before is None or id < before), reverse=True)
        return tuple(view_of(self.known[id]) for id in every[:limit])

    async def worker(self, worker_id: str) -> wire.WorkerView:
        self._enter("worker")
        return view_of(self._worker(worker_id))

    async def _set(self, name: str, actor: str, worker_id: str, why: str, state: str) -> FakeWorker:
        self._enter(name)
        worker = self._worker(worker_id)
        worker.state = state
        self._note(actor, f"worker.{name}_by_operator", worker_id, why)
        return worker

    async def quarantine(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        worker = await self._set("quarantine", actor, worker_id, reason, "quarantined")
        worker.quarantine_reason = reason
        await self._order(worker, OrderKind.QUARANTINED, reason)
        worker.lease = None
        return view_of(worker)

    async def release(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return view_of(await self._set("release", actor, worker_id, reason, "available"))

    async def reverify(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return view_of(await self._set("reverify", actor, worker_id, reason, "available"))

    async def cordon(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return view_of(await self._set("cordon", actor, worker_id, reason, "draining"))

    async def uncordon(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return view_of(await self._set("uncordon", actor, worker_id, reason, "available"))

    async def label(self, actor: str, worker_id: str, asked: LabelRequest) -> wire.WorkerView:
        worker = await self._set("label", actor, worker_id, asked.reason, "available")
        kept = {key: one for key, one in worker.labels.items() if key not in asked.remove}
        worker.labels = kept | asked.labels
        return view_of(worker)

    async def drain(
        self, actor: str, worker_id: str, reason: str, deadline_ms: int
    ) -> wire.WorkerView:
        return view_of(await self._set("drain", actor, worker_id, reason, "draining"))

    async def ban(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return view_of(await self._set("ban", actor, worker_id, reason, "quarantined"))

    async def evict(self, actor: str, worker_id: str, reason: str) -> wire.WorkerView:
        return view_of(await self._set("evict", actor, worker_id, reason, "offline"))

    async def revoke_lease(self, actor: str, lease_id: str, reason: str) -> wire.LeaseState:
        self._enter("revoke_lease")
        for worker in self.known.values():
            if worker.lease is not None and worker.lease.lease_id == lease_id:
                await self._order(worker, OrderKind.STOP_LEASE, reason)
                worker.lease = None
                return wire.LeaseState(
                    lease_id=lease_id, state="revoked", expires_at_unix_ms=self.clock()
                )
        raise FleetRefusal(FleetReason.LEASE_UNKNOWN, "no such lease")

    def held_leases(self) -> list[wire.LeaseAnswer]:
        return [worker.lease for worker in self.known.values() if worker.lease is not None]

    async def evidence_chain(self, proxy_id: str) -> wire.EvidenceChain:
        self._enter("evidence_chain")
        return wire.EvidenceChain(seq=len(self.evidence), last_sha256=NO_DIGEST)

    async def events(self, after_seq: int, limit: int) -> tuple[wire.EventView, ...]:
        self._enter("events")
        return tuple(event for event in self.log if event.seq > after_seq)[:limit]

    async def verify_events(self) -> int:
        self._enter("verify_events")
        return len(self.log)

    def standing(self) -> FleetState:
        return FleetState(Counter(worker.state for worker in self.known.values()), 0)

    def health(self) -> dict[str, str]:
        return self.checks

    def alarms(self) -> dict[str, str]:
        return self.raised
