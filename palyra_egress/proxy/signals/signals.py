"""What the core tells of each verdict and of bytes that pass: counted, and kept for the live
view."""

from dataclasses import dataclass, field

from palyra_egress.proxy.budgets import Direction
from palyra_egress.proxy.signals.live_view import LiveView
from palyra_egress.proxy.signals.metrics import ProxyCounts
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, Requester


@dataclass(slots=True)
class Signals:
    """One per proxy. Nothing here can refuse or fail."""

    counts: ProxyCounts = field(default_factory=ProxyCounts)
    live: LiveView = field(default_factory=LiveView)

    def decided(
        self, reason: Reason, request: EgressRequest, at_unix_ms: int, took_ms: int
    ) -> None:
        """A verdict about a canonical request was released."""
        self.counts.decisions[reason] += 1
        self.counts.durations.took(took_ms)
        self.live.decided(reason, request.requester, request, at_unix_ms)

    def refused_early(self, reason: Reason, who: Requester | None, at_unix_ms: int) -> None:
        """A refusal before there was a request; strangers have no row."""
        self.counts.decisions[reason] += 1
        if who is not None:
            self.live.decided(reason, who, None, at_unix_ms)

    def passed(self, worker_id: str, direction: Direction, count: int) -> None:
        """Bytes of a body or of a tunnel passed."""
        self.counts.bytes[direction] += count
        self.live.passed(worker_id, direction, count)
