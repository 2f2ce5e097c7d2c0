"""The names of every metric that our programs show, in one table: Prometheus reads them at
`/metrics`, dashboards and alerts are checked against them.

A name has one kind, one unit in its last word, and labels whose values come from closed sets: never
a host, a URL, a worker or a lease. A released name never changes. Source: Prometheus' naming
practices; the suffix `_total` is the counters'. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class MetricKind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: what it counts (a sentence), and its labels."""

    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()


_C, _G, _H = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

DECISIONS: Final = "palyra_egress_decisions_total"
DECISION_SECONDS: Final = "palyra_egress_decision_duration_seconds"
CONNECTIONS: Final = "palyra_egress_connections"
BYTES: Final = "palyra_egress_bytes_total"
POLICY_INFO: Final = "palyra_egress_policy_info"
POLICY_RELOAD_FAILURES: Final = "palyra_egress_policy_reload_failures_total"
AUDIT_LAG: Final = "palyra_egress_audit_lag_seconds"
EGRESS_CERTIFICATE_EXPIRY: Final = "palyra_egress_certificate_expiry_timestamp_seconds"
EGRESS_LOG_DROPPED: Final = "palyra_egress_log_lines_dropped_total"
EGRESS_SPANS: Final = "palyra_egress_trace_spans_total"
WORKERS: Final = "palyra_fleet_workers"
LEASES_ACTIVE: Final = "palyra_fleet_leases_active"
TRANSITIONS: Final = "palyra_fleet_transitions_total"
WORKERS_WAITING: Final = "palyra_fleet_workers_waiting"
OFFERS: Final = "palyra_fleet_offers_total"
QUARANTINE_LATENCY: Final = "palyra_fleet_quarantine_latency_seconds"
REAPER_LAG: Final = "palyra_fleet_reaper_lag_seconds"
FLEET_CERTIFICATE_EXPIRY: Final = "palyra_fleet_certificate_expiry_timestamp_seconds"
FLEET_LOG_DROPPED: Final = "palyra_fleet_log_lines_dropped_total"
EXPORT_EVENTS: Final = "palyra_fleet_export_events_total"
EXPORT_FAILURES: Final = "palyra_fleet_export_failures_total"
EXPORT_LAG: Final = "palyra_fleet_export_lag_seconds"
FLEET_SPANS: Final = "palyra_fleet_trace_spans_total"

EGRESS_METRICS: Final = MappingProxyType(
    {
        DECISIONS: MetricRow(_C, "Verdicts that were released.", ("effect", "reason")),
        DECISION_SECONDS: MetricRow(_H, "From a canonical request to its verdict."),
        CONNECTIONS: MetricRow(_G, "Workers' connections that are open."),
        BYTES: MetricRow(_C, "Bytes of bodies and tunnels, seen from the worker.", ("direction",)),
        POLICY_INFO: MetricRow(_G, "1 for the policy in force.", ("digest",)),
        POLICY_RELOAD_FAILURES: MetricRow(_C, "New policy texts that were not put in force."),
        AUDIT_LAG: MetricRow(_G, "Since when something written is not durable; 0 if all is."),
        EGRESS_CERTIFICATE_EXPIRY: MetricRow(
            _G, "When a certificate of the proxy ends, in Unix seconds.", ("certificate",)
        ),
        EGRESS_LOG_DROPPED: MetricRow(_C, "Log lines that were dropped: their reader is slow."),
        EGRESS_SPANS: MetricRow(_C, "Spans of traces by what became of them.", ("outcome",)),
    }
)
"""What a proxy shows."""

FLEET_METRICS: Final = MappingProxyType(
    {
        WORKERS: MetricRow(_G, "Workers by public state.", ("state",)),
        LEASES_ACTIVE: MetricRow(_G, "Leases that live."),
        WORKERS_WAITING: MetricRow(_G, "Workers that could be offered a run now."),
        OFFERS: MetricRow(_C, "Offers of runs, made and ended.", ("became",)),
        TRANSITIONS: MetricRow(_C, "Changes of state.", ("from", "to", "reason")),
        QUARANTINE_LATENCY: MetricRow(_H, "From a violation to its durable quarantine."),
        REAPER_LAG: MetricRow(_G, "How late the last ended lease was reaped."),
        FLEET_CERTIFICATE_EXPIRY: MetricRow(
            _G, "When a certificate of the fleet ends, in Unix seconds.", ("certificate",)
        ),
        FLEET_LOG_DROPPED: MetricRow(_C, "Log lines that were dropped: their reader is slow."),
        EXPORT_EVENTS: MetricRow(_C, "Events by what became of them.", ("receiver", "outcome")),
        EXPORT_FAILURES: MetricRow(_C, "Tries that were not taken.", ("receiver", "problem")),
        EXPORT_LAG: MetricRow(_G, "Age of the oldest event that was not taken.", ("receiver",)),
        FLEET_SPANS: MetricRow(_C, "Spans of traces by what became of them.", ("outcome",)),
    }
)
"""What a fleet shows."""
