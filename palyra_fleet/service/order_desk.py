"""OrderDesk: what each worker must be told, with long polling.

Orders live in memory: after a restart a worker learns the same from its heartbeat (state, leases to
stop). `seq` starts above every number of earlier epochs, so a worker that asks for more after its
last one misses nothing. The newest orders per worker are kept, older ones dropped. Who waits is let
go as soon as it may not be told any more: its key was replaced, or the worker is forgotten.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from palyra_fleet.ledger.decision import Notice
from palyra_fleet.ledger.wire_views import offer_model
from palyra_fleet.wire.placement_models import WorkerOrder

MAX_KEPT = 64
MAX_WAIT_MS = 60_000


@dataclass(slots=True, eq=False)
class _Waiting:
    """One call that waits. `may_hear`: whether its caller may still be told."""

    may_hear: Callable[[], bool]
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class OrderDesk:
    """Orders by worker."""

    def __init__(self, epoch: int) -> None:
        self._seq = epoch << 32
        self._orders: dict[str, deque[WorkerOrder]] = {}
        self._waiting: dict[str, set[_Waiting]] = {}
        self._closed = False

    def take(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            self._seq += 1
            order = WorkerOrder(
                seq=self._seq,
                kind=notice.kind,
                lease_id=notice.lease_id,
                reason=notice.reason,
                offer=None if notice.offer is None else offer_model(notice.offer),
            )
            kept = self._orders.setdefault(notice.worker_id, deque(maxlen=MAX_KEPT))
            kept.append(order)
            self._wake(notice.worker_id)

    def forget(self, worker_id: str) -> None:
        """The worker was evicted."""
        self._orders.pop(worker_id, None)
        self._wake(worker_id)

    def look(self, worker_id: str) -> None:
        """Let go who waits as this worker and may hear no more."""
        for waiting in self._waiting.get(worker_id, ()):
            if not waiting.may_hear():
                waiting.woken.set()

    def look_at_all(self) -> None:
        """The same, of every worker."""
        for worker_id in self._waiting:
            self.look(worker_id)

    def close(self) -> None:
        """Answer everyone who waits."""
        self._closed = True
        for worker_id in self._waiting:
            self._wake(worker_id)

    async def wait(
        self, worker_id: str, after_seq: int, wait_ms: int, may_hear: Callable[[], bool]
    ) -> tuple[WorkerOrder, ...]:
        """Orders after `after_seq`; waits up to `wait_ms` for one. None for a caller that may hear
        no more, however long it has waited."""
        if not may_hear():
            return ()
        orders = self._after(worker_id, after_seq)
        if orders or self._closed or wait_ms <= 0:
            return orders
        one = _Waiting(may_hear)
        waiting = self._waiting.setdefault(worker_id, set())
        waiting.add(one)
        try:
            async with asyncio.timeout(min(wait_ms, MAX_WAIT_MS) / 1000):
                await one.woken.wait()
        except TimeoutError:
            return ()
        finally:
            waiting.discard(one)
            if not waiting and self._waiting.get(worker_id) is waiting:
                del self._waiting[worker_id]
        return self._after(worker_id, after_seq) if may_hear() else ()

    def _after(self, worker_id: str, after_seq: int) -> tuple[WorkerOrder, ...]:
        return tuple(o for o in self._orders.get(worker_id, ()) if o.seq > after_seq)

    def _wake(self, worker_id: str) -> None:
        for waiting in self._waiting.get(worker_id, ()):
            waiting.woken.set()
