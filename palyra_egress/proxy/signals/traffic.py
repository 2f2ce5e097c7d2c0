"""What the proxy counts of its traffic, as the report that it sends to the fleet. Pure, bounded.

Rules are counted for the policy in force: another policy begins anew. Of rules and workers only the
busiest are told. Times: Unix ms.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.signals.live_view import LiveView, WorkerActivity
from palyra_egress.proxy.signals.metrics import ProxyCounts
from palyra_egress.reasons import Reason, ReasonClass, row
from palyra_egress.verdict import Verdict
from palyra_fleet.wire.traffic_models import (
    MAX_RULES,
    MAX_WORKERS,
    RuleVerdicts,
    TrafficReport,
    WorkerBytes,
)


@dataclass(slots=True)
class RuleCounts:
    """How often each rule of the policy in force decided. As many rows as the policy has rules."""

    policy_digest: str | None = None
    allowed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def in_force(self, policy_digest: str) -> None:
        """This policy decides from now on; another one begins anew."""
        if policy_digest != self.policy_digest:
            self.policy_digest = policy_digest
            self.allowed.clear()
            self.refused.clear()

    def decided(self, verdict: Verdict) -> None:
        """A verdict was released; one that no rule decided counts for none."""
        self.in_force(verdict.policy_digest)
        if verdict.rule_id is not None:
            (self.allowed if verdict.allowed else self.refused)[verdict.rule_id] += 1

    def busiest(self) -> tuple[RuleVerdicts, ...]:
        both = self.allowed + self.refused
        return tuple(
            RuleVerdicts(
                rule_id=rule_id, allowed=self.allowed[rule_id], refused=self.refused[rule_id]
            )
            for rule_id, _ in both.most_common(MAX_RULES)
        )


def traffic_report(
    since_unix_ms: int, counts: ProxyCounts, rules: RuleCounts, live: LiveView
) -> TrafficReport:
    """Everything that was counted since the proxy started."""
    known = set(rules.allowed) | set(rules.refused)
    moved = {name: one for name, one in live.workers.items() if _bytes(one)}
    busiest = heapq.nlargest(MAX_WORKERS, moved.items(), key=lambda one: _bytes(one[1]))
    return TrafficReport(
        since_unix_ms=since_unix_ms,
        allowed=_by_reason(counts, _allows),
        refused=_by_reason(counts, lambda reason: not _allows(reason)),
        bytes_out=counts.bytes[Direction.OUT],
        bytes_in=counts.bytes[Direction.IN],
        policy_digest=rules.policy_digest or None,
        rules=rules.busiest(),
        rules_left_out=max(0, len(known) - MAX_RULES),
        workers=tuple(
            WorkerBytes(worker_id=name, bytes_out=one.bytes_out, bytes_in=one.bytes_in)
            for name, one in busiest
        ),
        workers_left_out=len(moved) - len(busiest),
    )


def _by_reason(counts: ProxyCounts, wanted: Callable[[Reason], bool]) -> dict[str, int]:
    return {reason.value: count for reason, count in counts.decisions.items() if wanted(reason)}


def _allows(reason: Reason) -> bool:
    return row(reason).reason_class is ReasonClass.ALLOWED


def _bytes(one: WorkerActivity) -> int:
    return one.bytes_out + one.bytes_in
