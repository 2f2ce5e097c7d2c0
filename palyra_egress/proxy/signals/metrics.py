"""The proxy's metrics, counted as plain numbers and written for Prometheus when it asks.

Names, kinds and labels are those of `palyra_fleet.wire.metric_names`; nothing else can be shown.
Label values are reasons, effects, directions and names of ours: closed sets.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.reasons import Reason, ReasonClass, row
from palyra_fleet.logs.output import dropped_lines
from palyra_fleet.traces.spans import SpanCounts
from palyra_fleet.wire import metric_names as names
from palyra_fleet.wire.durations import Durations

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class ProxyCounts:
    """What has happened since the start."""

    decisions: Counter[Reason] = field(default_factory=Counter)
    durations: Durations = field(default_factory=Durations)
    bytes: dict[Direction, int] = field(default_factory=lambda: {Direction.OUT: 0, Direction.IN: 0})
    policy_reload_failures: int = 0
    spans: SpanCounts | None = None
    """Where traces are asked for."""


@dataclass(frozen=True, slots=True)
class ProxyState:
    """What is so at the moment somebody asks."""

    connections: int
    policy_digest: str | None
    audit_lag_s: float
    certificates: dict[str, float]


def exposition(counts: ProxyCounts, state: ProxyState) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(counts, state))
    return generate_latest(registry)


class _Shown(Collector):
    def __init__(self, counts: ProxyCounts, state: ProxyState) -> None:
        self._counts = counts
        self._state = state

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        counts, state = self._counts, self._state
        decisions = _counter(names.DECISIONS)
        for reason, count in sorted(counts.decisions.items()):
            decisions.add_metric([_effect(reason), reason.value], count)
        yield decisions
        durations = HistogramMetricFamily(names.DECISION_SECONDS, _help(names.DECISION_SECONDS))
        durations.add_metric([], counts.durations.buckets(), counts.durations.sum_ms / 1000)
        yield durations
        yield _gauge(names.CONNECTIONS, {(): state.connections})
        passed = _counter(names.BYTES)
        for direction, count in counts.bytes.items():
            passed.add_metric([direction.value], count)
        yield passed
        digest = state.policy_digest
        yield _gauge(names.POLICY_INFO, {} if digest is None else {(digest,): 1})
        failures = _counter(names.POLICY_RELOAD_FAILURES)
        failures.add_metric([], counts.policy_reload_failures)
        yield failures
        yield _gauge(names.AUDIT_LAG, {(): state.audit_lag_s})
        ends: dict[tuple[str, ...], float] = {
            (name,): end for name, end in sorted(state.certificates.items())
        }
        yield _gauge(names.EGRESS_CERTIFICATE_EXPIRY, ends)
        dropped = _counter(names.EGRESS_LOG_DROPPED)
        dropped.add_metric([], dropped_lines())
        yield dropped
        spans = _counter(names.EGRESS_SPANS)
        for outcome, count in ({} if counts.spans is None else counts.spans.by_outcome()).items():
            spans.add_metric([outcome.value], count)
        yield spans


def _effect(reason: Reason) -> str:
    return "allow" if row(reason).reason_class is ReasonClass.ALLOWED else "deny"


def _help(name: str) -> str:
    return names.EGRESS_METRICS[name].help


def _counter(name: str) -> CounterMetricFamily:
    labels = names.EGRESS_METRICS[name].labels
    return CounterMetricFamily(name, _help(name), labels=labels)


def _gauge(name: str, values: dict[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, _help(name), labels=names.EGRESS_METRICS[name].labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family
