"""What the core tells of each verdict and of bytes that pass: counted, kept for the live view, and
a refusal written to the log."""

from dataclasses import dataclass, field

from palyra_egress.proxy.budgets import Direction
from palyra_egress.proxy.signals.live_view import LiveView
from palyra_egress.proxy.signals.metrics import ProxyCounts
from palyra_egress.proxy.signals.refusal_lines import log_early_refusal, log_refusal
from palyra_egress.proxy.signals.traffic import RuleCounts, traffic_report
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import Verdict
from palyra_fleet.wire.traffic_models import TrafficReport


@dataclass(slots=True)
class Signals:
    """One per proxy. Nothing here can refuse or fail."""

    counts: ProxyCounts = field(default_factory=ProxyCounts)
    live: LiveView = field(default_factory=LiveView)
    rules: RuleCounts = field(default_factory=RuleCounts)

    def decided(
        self,
        verdict: Verdict,
        request: EgressRequest,
        decision_id: str,
        at_unix_ms: int,
        took_ms: int,
    ) -> None:
        """A verdict about a canonical request was released."""
        self.counts.decisions[verdict.reason] += 1
        self.counts.durations.took(took_ms)
        self.rules.decided(verdict)
        self.live.decided(verdict.reason, request.requester, request, at_unix_ms)
        if not verdict.allowed:
            log_refusal(verdict, request.requester, decision_id)

    def refused_early(
        self, reason: Reason, who: Requester | None, decision_id: str, at_unix_ms: int
    ) -> None:
        """A refusal before there was a request; strangers have no row."""
        self.counts.decisions[reason] += 1
        log_early_refusal(reason, who, decision_id)
        if who is not None:
            self.live.decided(reason, who, None, at_unix_ms)

    def passed(self, worker_id: str, direction: Direction, count: int) -> None:
        """Bytes of a body or of a tunnel passed."""
        self.counts.bytes[direction] += count
        self.live.passed(worker_id, direction, count)

    def traffic(self, since_unix_ms: int, policy_digest: str) -> TrafficReport:
        """What the fleet is told; `since_unix_ms` is when this began to count, and rules are
        those of the policy in force."""
        self.rules.in_force(policy_digest)
        return traffic_report(since_unix_ms, self.counts, self.rules, self.live)
