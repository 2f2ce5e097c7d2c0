"""ViewHub: the proxies' live view of bindings, sent as a snapshot and then as changes.

Fed with applied decisions only, so no proxy hears what is not durable. A subscriber's queue is
bounded; one that does not keep up is dropped and must connect again, which starts with a snapshot.
A lease is told with the facts of its worker's current evidence, and told again when they change.
Without changes a tick says the view is fresh. When the hub closes every stream ends, and a proxy
without a fresh view denies. `seq` grows with every change of one epoch.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection

from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.decision import EnrolledKey, EvictedWorker, FleetFreeze, Record
from palyra_fleet.ledger.facts import Proof, WorkerRecord
from palyra_fleet.wire.view_models import AttestedFacts, Binding, ViewMessage

MAX_QUEUED = 1_024
TICK_EVERY_S = 0.5
MAX_RECENT = 4_096
"""How many changes are kept for proxies that were away for a moment."""


UNKNOWN = AttestedFacts()


def facts_of(proof: Proof) -> AttestedFacts:
    """What a worker's current evidence says about it, as proxies are told. What only the worker
    itself says of its digests is not known."""
    digests = {
        "image_digest_sha256": proof.image_digest_sha256,
        "build_digest_sha256": proof.build_digest_sha256,
        "artifact_digest_sha256": proof.artifact_digest_sha256,
    }
    return AttestedFacts.model_validate(
        {
            **(digests if proof.measured else {}),
            "capabilities": tuple(sorted(proof.capabilities)),
            "binding_level": proof.binding_level.name.lower(),
        }
    )


def binding_of(
    lease: WorkerLease, facts: AttestedFacts, certificates: tuple[str, ...] = ()
) -> Binding:
    return Binding(
        worker_id=lease.worker_id,
        lease_id=lease.lease_id,
        run_id=lease.run_id,
        fence=lease.fence,
        egress_profile=lease.egress_profile,
        egress_secret_sha256=lease.egress_secret_sha256,
        expires_at_unix_ms=lease.expires_at_unix_ms,
        facts=facts,
        client_certificates_sha256=certificates,
    )


def _none(_worker_id: str) -> tuple[str, ...]:
    return ()


class ViewHub:
    """What every proxy should believe right now, and who listens."""

    def __init__(self, epoch: int, highest_fence: int, max_queued: int = MAX_QUEUED) -> None:
        self._epoch = epoch
        self._seq = 0
        self._highest_fence = highest_fence
        self._max_queued = max_queued
        self._bindings: dict[str, Binding] = {}
        self._lease_of: dict[str, WorkerLease] = {}  # by worker: its live lease
        self._proofs: dict[str, Proof] = {}
        self._blocked: set[str] = set()
        self._suspended: frozenset[str] = frozenset()
        self._egress_frozen = False
        self._listeners: dict[asyncio.Queue[ViewMessage | None], str] = {}
        self._recent: deque[ViewMessage] = deque(maxlen=MAX_RECENT)
        self._closed = False
        self._certificates: Callable[[str], tuple[str, ...]] = _none

    def tell_certificates(self, of: Callable[[str], tuple[str, ...]]) -> None:
        """From now on leases are told with the certificates that `of` says a worker has."""
        self._certificates = of
        self.look_at_certificates()

    def look_at_certificates(self) -> None:
        """Tell again the leases whose workers have other certificates by now."""
        for lease in list(self._lease_of.values()):
            self._bind(lease)

    def take(self, records: Collection[Record], highest_fence: int) -> None:
        """Believe durable records and tell the listeners what changed."""
        self._highest_fence = max(self._highest_fence, highest_fence)
        workers = [record for record in records if isinstance(record, WorkerRecord)]
        self._proofs.update((worker.worker_id, worker.proof) for worker in workers)
        for record in records:
            match record:
                case WorkerRecord():
                    self._take_worker(record)
                case WorkerLease():
                    self._take_lease(record)
                case EvictedWorker(worker_id):
                    self._proofs.pop(worker_id, None)
                    self._unblock(worker_id)
                case FleetFreeze(egress=egress):
                    self._freeze(egress)
                case EnrolledKey(kind="proxy", name=name) if record.revoked:
                    self._end(name)
                case _:
                    pass
        for worker in workers:  # what changed about the worker of a lease that did not
            lease = self._lease_of.get(worker.worker_id)
            if lease is not None:
                self._bind(lease)

    async def stream(
        self, proxy_id: str, heard: tuple[int, int] | None = None
    ) -> AsyncIterator[ViewMessage]:
        """One proxy's stream. Ends when it is too slow or taken back, or the fleet closes.

        `heard` is the (epoch, seq) that the proxy heard last: it gets what came after, where that
        is still known, and else a snapshot.
        """
        if self._closed:
            return
        queue = asyncio.Queue[ViewMessage | None](self._max_queued)
        self._listeners[queue] = proxy_id
        try:
            for missed in self._since(heard):
                yield missed
            while not self._closed:
                message = await self._next(queue)
                if message is None or queue not in self._listeners:
                    return
                yield message
        finally:
            self._listeners.pop(queue, None)

    def _since(self, heard: tuple[int, int] | None) -> list[ViewMessage]:
        """What a proxy that heard so much must hear first. Taken together: nothing is between."""
        missed = [] if heard is None else [one for one in self._recent if one.seq > heard[1]]
        if heard is None or heard[0] != self._epoch or not 0 <= self._seq - heard[1] == len(missed):
            return [self._snapshot()]
        return missed or [self._message("tick")]

    def binding_of(self, worker_id: str) -> Binding | None:
        """What proxies are told of the worker's live lease, if it has one."""
        lease = self._lease_of.get(worker_id)
        return None if lease is None else self._bindings.get(lease.lease_id)

    def suspend(self, worker_ids: frozenset[str]) -> None:
        """Whose egress is suspended now; the listeners hear what changed."""
        before, self._suspended = self._suspended, worker_ids
        for worker_id in sorted(worker_ids - before):
            self._tell("suspend", worker_id=worker_id)
        for worker_id in sorted(before - worker_ids):
            self._tell("resume", worker_id=worker_id)

    def close(self) -> None:
        """End every stream, at the latest with its next tick."""
        self._closed = True
        self._listeners.clear()

    def _end(self, proxy_id: str) -> None:
        """End the streams of a proxy that is trusted no more, now."""
        for queue in [queue for queue, listens in self._listeners.items() if listens == proxy_id]:
            del self._listeners[queue]
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def _next(self, queue: asyncio.Queue[ViewMessage | None]) -> ViewMessage | None:
        try:
            async with asyncio.timeout(TICK_EVERY_S):
                return await queue.get()
        except TimeoutError:
            # what came while the wait was given up goes first: a tick carries the newest number,
            # and a proxy that hears an older one after it takes the fleet for rolled back
            return self._message("tick") if queue.empty() else queue.get_nowait()

    def _take_worker(self, worker: WorkerRecord) -> None:
        if not worker.confined:
            self._unblock(worker.worker_id)
        elif worker.worker_id not in self._blocked:
            self._blocked.add(worker.worker_id)
            self._tell("block", worker_id=worker.worker_id)

    def _freeze(self, egress: bool) -> None:
        if egress is not self._egress_frozen:
            self._egress_frozen = egress
            self._tell("freeze" if egress else "thaw")

    def _unblock(self, worker_id: str) -> None:
        if worker_id in self._blocked:
            self._blocked.remove(worker_id)
            self._tell("unblock", worker_id=worker_id)

    def _take_lease(self, lease: WorkerLease) -> None:
        if not lease.status.live:
            if self._bindings.pop(lease.lease_id, None) is not None:
                self._lease_of.pop(lease.worker_id, None)
                self._tell("unbind", worker_id=lease.worker_id, lease_id=lease.lease_id)
            return
        self._lease_of[lease.worker_id] = lease
        self._bind(lease)

    def _bind(self, lease: WorkerLease) -> None:
        """Tell whose lease this is and what is known of its worker, if that is new."""
        proof = self._proofs.get(lease.worker_id)
        facts = UNKNOWN if proof is None else facts_of(proof)
        binding = binding_of(lease, facts, self._certificates(lease.worker_id))
        if self._bindings.get(lease.lease_id) != binding:
            self._bindings[lease.lease_id] = binding
            self._tell("bind", worker_id=lease.worker_id, lease_id=lease.lease_id, new=binding)

    def _tell(
        self,
        kind: str,
        worker_id: str | None = None,
        lease_id: str | None = None,
        new: Binding | None = None,
    ) -> None:
        self._seq += 1
        message = self._message(kind, worker_id, lease_id, () if new is None else (new,))
        self._recent.append(message)
        for queue in tuple(self._listeners):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                del self._listeners[queue]

    def _snapshot(self) -> ViewMessage:
        blocked = tuple(sorted(self._blocked))
        message = self._message("snapshot", bindings=tuple(self._bindings.values()))
        suspended = tuple(sorted(self._suspended))
        return message.model_copy(
            update={
                "blocked_workers": blocked,
                "suspended_workers": suspended,
                "egress_frozen": self._egress_frozen,
            }
        )

    def _message(
        self,
        kind: str,
        worker_id: str | None = None,
        lease_id: str | None = None,
        bindings: tuple[Binding, ...] = (),
    ) -> ViewMessage:
        return ViewMessage.model_validate(
            {
                "kind": kind,
                "epoch": self._epoch,
                "seq": self._seq,
                "bindings": bindings,
                "worker_id": worker_id,
                "lease_id": lease_id,
                "highest_fence": self._highest_fence,
            }
        )
