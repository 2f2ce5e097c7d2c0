"""What the core tells of each verdict and of bytes that pass: counted, kept for the live view, and
a refusal written to the log."""

from dataclasses import dataclass, field

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.signals.live_view import LiveView
from palyra_egress.proxy.signals.metrics import ProxyCounts
from palyra_egress.proxy.signals.refusal_lines import log_early_refusal, log_refusal
from palyra_egress.proxy.signals.request_trace import RequestTrace, RequestTraces
from palyra_egress.proxy.signals.traffic import RuleCounts, traffic_report
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import Verdict
from palyra_fleet.traces.spans import Spans
from palyra_fleet.wire.traffic_models import TrafficReport


@dataclass(slots=True)
class Signals:
    """One per proxy. Nothing here can refuse or fail."""

    counts: ProxyCounts = field(default_factory=ProxyCounts)
    live: LiveView = field(default_factory=LiveView)
    rules: RuleCounts = field(default_factory=RuleCounts)
    traces: RequestTraces = field(default_factory=RequestTraces)

    def trace_to(self, proxy_id: str, spans: Spans | None) -> None:
        """Where this proxy's spans go; None: nowhere."""
        self.traces = RequestTraces(proxy_id, spans)
        self.counts.spans = None if spans is None else spans.counts

    def decided(
        self,
        verdict: Verdict,
        request: EgressRequest,
        decision_id: str,
        at_unix_ms: int,
        took_ms: int,
        evidence_seq: int | None = None,
    ) -> RequestTrace | None:
        """A verdict about a canonical request was released; its trace, if it has one."""
        self.counts.decisions[verdict.reason] += 1
        self.counts.durations.took(took_ms)
        self.rules.decided(verdict)
        self.live.decided(verdict.reason, request.requester, request, at_unix_ms)
        trace = self.traces.decided(verdict, request, decision_id, evidence_seq)
        if not verdict.allowed:
            trace_id = None if trace is None else trace.context.trace_id
            log_refusal(verdict, request.requester, decision_id, trace_id)
        return trace

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
