"""The fleet's metrics in Prometheus' text format, written when somebody asks.

Names, kinds and labels are those of `palyra_fleet.wire.metric_names`; nothing else can be shown.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from palyra_fleet.ledger.facts import WorkerLifecycleState
from palyra_fleet.logs.output import dropped_lines
from palyra_fleet.signals.counts import MADE, FleetCounts
from palyra_fleet.wire import metric_names as names
from palyra_fleet.wire.placement_models import OfferState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class FleetState:
    """What is so at the moment somebody asks. `certificates` ends in Unix ms, by name; `now` is
    the fleet's time."""

    workers: Counter[str]
    leases: int
    certificates: Mapping[str, int] = field(default_factory=dict)
    now_unix_ms: int = 0
    waiting: int = 0


def exposition(counts: FleetCounts, state: FleetState) -> bytes:
    """All metrics of the fleet."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(counts, state))
    return generate_latest(registry)


class _Shown(Collector):
    def __init__(self, counts: FleetCounts, state: FleetState) -> None:
        self._counts = counts
        self._state = state

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        counts, state = self._counts, self._state
        by_state: dict[tuple[str, ...], float] = {
            (one.value,): float(state.workers[one.value]) for one in WorkerLifecycleState
        }
        yield _gauge(names.WORKERS, by_state)
        yield _gauge(names.LEASES_ACTIVE, {(): state.leases})
        yield _gauge(names.WORKERS_WAITING, {(): state.waiting})
        offered = (MADE, *(one.value for one in OfferState if one is not OfferState.OPEN))
        yield _counter(names.OFFERS, {(one,): counts.offers[one] for one in offered})
        changes: dict[tuple[str, ...], float] = dict(sorted(counts.transitions.items()))
        yield _counter(names.TRANSITIONS, changes)
        row = names.FLEET_METRICS[names.QUARANTINE_LATENCY]
        latency = HistogramMetricFamily(names.QUARANTINE_LATENCY, row.help)
        took = counts.quarantine_latency
        latency.add_metric([], took.buckets(), took.sum_ms / 1000)
        yield latency
        yield _gauge(names.REAPER_LAG, {(): counts.reaper_lag_ms / 1000})
        ends: dict[tuple[str, ...], float] = {
            (name,): end / 1000 for name, end in sorted(state.certificates.items())
        }
        yield _gauge(names.FLEET_CERTIFICATE_EXPIRY, ends)
        yield _counter(names.FLEET_LOG_DROPPED, {(): dropped_lines()})
        yield from self._exports()
        became = {} if counts.spans is None else counts.spans.by_outcome()
        yield _counter(names.FLEET_SPANS, {(one.value,): count for one, count in became.items()})

    def _exports(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        exports = sorted(self._counts.exports.items())
        became: dict[tuple[str, ...], float] = {}
        failures: dict[tuple[str, ...], float] = {}
        for name, one in exports:
            became[name, "delivered"], became[name, "skipped"] = one.delivered, one.skipped
            failures |= {(name, why.value): count for why, count in sorted(one.failures.items())}
        yield _counter(names.EXPORT_EVENTS, became)
        yield _counter(names.EXPORT_FAILURES, failures)
        now = self._state.now_unix_ms
        yield _gauge(names.EXPORT_LAG, {(name,): one.lag_ms(now) / 1000 for name, one in exports})


def _counter(name: str, values: Mapping[tuple[str, ...], float]) -> CounterMetricFamily:
    row = names.FLEET_METRICS[name]
    family = CounterMetricFamily(name, row.help, labels=row.labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family


def _gauge(name: str, values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    row = names.FLEET_METRICS[name]
    family = GaugeMetricFamily(name, row.help, labels=row.labels)
    for labels, value in values.items():
        family.add_metric(list(labels), value)
    return family
