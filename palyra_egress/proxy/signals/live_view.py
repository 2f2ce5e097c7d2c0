"""What each worker does right now: connections, bytes each way, the last verdicts. Pure, bounded.

For the people who run the proxy, over its own socket; targets stand here as in the audit log,
without their query. A worker's row is kept while it is among the last `MAX_WORKERS` that did
anything, and its verdicts are the last `MAX_VERDICTS`. Times: Unix milliseconds.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, Requester

MAX_WORKERS: Final = 4096
MAX_VERDICTS: Final = 20
MAX_TARGET: Final = 256

type Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class RecentVerdict:
    """One verdict, as people look at it."""

    at_unix_ms: int
    reason: Reason
    allowed: bool
    method: str
    target: str

    def shown(self) -> Json:
        return {
            "at_unix_ms": self.at_unix_ms,
            "effect": "allow" if self.allowed else "deny",
            "reason": self.reason.value,
            "method": self.method,
            "target": self.target,
        }


@dataclass(slots=True)
class WorkerActivity:
    """One worker. Bytes are those of bodies and tunnels since the row was made."""

    lease_id: str = ""
    bytes_out: int = 0
    bytes_in: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    verdicts: deque[RecentVerdict] = field(default_factory=lambda: deque(maxlen=MAX_VERDICTS))

    def shown(self, worker_id: str, connections: int, *, blocked: bool) -> Json:
        return {
            "worker_id": worker_id,
            "lease_id": self.lease_id,
            "blocked": blocked,
            "connections": connections,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "verdicts_by_reason": {
                reason.value: count for reason, count in sorted(self.reasons.items())
            },
            "last_verdicts": [one.shown() for one in self.verdicts],
        }


@dataclass(slots=True)
class LiveView:
    """All rows by worker id, the one that did something last at the end."""

    workers: OrderedDict[str, WorkerActivity] = field(default_factory=OrderedDict)

    def decided(
        self, reason: Reason, who: Requester, request: EgressRequest | None, at_unix_ms: int
    ) -> None:
        """A verdict for this worker; without a request it was refused before there was one."""
        row = self._row(who.worker_id)
        row.lease_id = who.lease_id
        row.reasons[reason] += 1
        method = "" if request is None else request.method
        target = "" if request is None else request.url[:MAX_TARGET]
        allowed = reason in (Reason.ALLOWED, Reason.OBSERVED)
        row.verdicts.append(RecentVerdict(at_unix_ms, reason, allowed, method, target))

    def passed(self, worker_id: str, direction: Direction, count: int) -> None:
        """Bytes of a body or tunnel went by."""
        row = self._row(worker_id)
        if direction is Direction.OUT:
            row.bytes_out += count
        else:
            row.bytes_in += count

    def _row(self, worker_id: str) -> WorkerActivity:
        row = self.workers.get(worker_id)
        if row is None:
            row = self.workers[worker_id] = WorkerActivity()
            if len(self.workers) > MAX_WORKERS:
                self.workers.popitem(last=False)
        self.workers.move_to_end(worker_id)
        return row
