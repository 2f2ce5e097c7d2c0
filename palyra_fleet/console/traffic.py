"""What the pages show of the proxies' traffic: charts, and tables of the same numbers. Pure.

Decisions are drawn in steps of three minutes over three hours, from the minutes that the fleet
keeps. Bytes of workers and verdicts of rules are those that each proxy told last, added up. Every
word in it came from a proxy: it is escaped where it is shown. Times: Unix ms.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from palyra_fleet.console import charts
from palyra_fleet.console.words import clock_time
from palyra_fleet.wire.traffic_models import (
    MINUTE_MS,
    MINUTES_KEPT,
    ProxyTraffic,
    TrafficMinute,
    TrafficView,
)

STEP_MS: Final = 3 * MINUTE_MS
STEPS: Final = MINUTES_KEPT * MINUTE_MS // STEP_MS
_BUSIEST: Final = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of the chart, as a row of its table."""

    at_unix_ms: int
    allowed: int
    refused: int


@dataclass(frozen=True, slots=True)
class WorkerTraffic:
    """One worker at all proxies."""

    worker_id: str
    bytes_out: int
    bytes_in: int

    @property
    def total(self) -> int:
        return self.bytes_out + self.bytes_in


@dataclass(frozen=True, slots=True)
class TrafficPicture:
    """`steps` are those with anything in them, newest first; `reasons` and `workers` begin with the
    largest. `untold_workers` says that there are more than the proxies told."""

    known_since_unix_ms: int
    proxies: int
    restarts: int
    allowed: int
    refused: int
    decisions: charts.BarChart
    steps: tuple[Step, ...]
    reasons: tuple[tuple[str, int], ...]
    workers: tuple[WorkerTraffic, ...]
    untold_workers: bool


@dataclass(frozen=True, slots=True)
class RuleCount:
    allowed: int
    refused: int


@dataclass(frozen=True, slots=True)
class PolicyTraffic:
    """Verdicts by rule of one policy, from `proxies` that have it in force. `others` have another
    one; `whole` is False where a proxy told only its busiest rules."""

    proxies: int
    others: int
    by_rule: dict[str, RuleCount]
    whole: bool


def picture(view: TrafficView, now_unix_ms: int) -> TrafficPicture:
    """What the overview shows."""
    steps = _steps(view.minutes, now_unix_ms)
    reasons: Counter[str] = Counter()
    for minute in view.minutes:
        reasons.update(minute.refused_by_reason)
    busiest = sorted(by_worker(view.proxies), key=lambda one: one.total, reverse=True)
    untold = any(one.report.workers_left_out for one in view.proxies)
    return TrafficPicture(
        known_since_unix_ms=view.known_since_unix_ms,
        proxies=len(view.proxies),
        restarts=sum(one.restarts for one in view.proxies),
        allowed=sum(one.allowed for one in view.minutes),
        refused=sum(one.refused for one in view.minutes),
        decisions=charts.stacked(
            [(one.refused, one.allowed) for one in steps],
            [_told(one) for one in steps],
            ("bad", "good"),
        ),
        steps=tuple(one for one in reversed(steps) if one.allowed or one.refused),
        reasons=tuple(reasons.most_common(_BUSIEST)),
        workers=tuple(busiest[:_BUSIEST]),
        untold_workers=untold or len(busiest) > _BUSIEST,
    )


def of_policy(view: TrafficView, policy_digest: str) -> PolicyTraffic:
    """Verdicts by rule of the policy with this digest."""
    ours = [one.report for one in view.proxies if one.report.policy_digest == policy_digest]
    allowed: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for report in ours:
        allowed.update({rule.rule_id: rule.allowed for rule in report.rules})
        refused.update({rule.rule_id: rule.refused for rule in report.rules})
    return PolicyTraffic(
        proxies=len(ours),
        others=sum(one.report.policy_digest not in {None, policy_digest} for one in view.proxies),
        by_rule={
            rule_id: RuleCount(allowed[rule_id], refused[rule_id])
            for rule_id in allowed.keys() | refused.keys()
        },
        whole=not any(report.rules_left_out for report in ours),
    )


def _steps(minutes: Iterable[TrafficMinute], now_unix_ms: int) -> list[Step]:
    """All steps up to now, oldest first, empty ones too."""
    last = now_unix_ms - now_unix_ms % STEP_MS
    first = last - (STEPS - 1) * STEP_MS
    sums = [[0, 0] for _ in range(STEPS)]
    for minute in minutes:
        index = (minute.at_unix_ms - first) // STEP_MS
        if 0 <= index < STEPS:
            sums[index][0] += minute.allowed
            sums[index][1] += minute.refused
    return [Step(first + n * STEP_MS, *both) for n, both in enumerate(sums)]


def _told(step: Step) -> str:
    return f"{step.allowed} allowed, {step.refused} refused from {clock_time(step.at_unix_ms)}"


def by_worker(proxies: Iterable[ProxyTraffic]) -> list[WorkerTraffic]:
    """Each worker that a proxy told of, added up."""
    sent: Counter[str] = Counter()
    received: Counter[str] = Counter()
    for proxy in proxies:
        for one in proxy.report.workers:
            sent[one.worker_id] += one.bytes_out
            received[one.worker_id] += one.bytes_in
    return [WorkerTraffic(name, sent[name], received[name]) for name in sent]
