"""Writes deploy/grafana/palyra-dashboard.json. `make reference` runs it; a test compares.

One row a panel: title, PromQL, unit; a row with `more` draws several expressions, since `rate` and
`increase` forget a metric's name. Everything else about a panel follows from these.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from palyra_fleet.wire import metric_names as names

FILE: Final = Path(__file__).parent.parent / "deploy" / "grafana" / "palyra-dashboard.json"
_ACROSS: Final = 2
_HEIGHT: Final = 8


class Panel(NamedTuple):
    title: str
    expression: str
    legend: str
    unit: str = "short"
    kind: str = "timeseries"
    more: tuple[tuple[str, str], ...] = ()
    """Further expressions with their legends."""

    @property
    def targets(self) -> tuple[tuple[str, str], ...]:
        return ((self.expression, self.legend), *self.more)


PANELS: Final = (
    Panel(
        "Decisions a second, by outcome",
        f"sum by (effect) (rate({names.DECISIONS}[$__rate_interval]))",
        "{{effect}}",
        "reqps",
    ),
    Panel(
        "Refusals a second, by reason",
        f'topk(10, sum by (reason) (rate({names.DECISIONS}{{effect="deny"}}[$__rate_interval])))',
        "{{reason}}",
        "reqps",
    ),
    Panel(
        "How long decisions take, p99",
        "histogram_quantile(0.99, sum by (le) "
        f"(rate({names.DECISION_SECONDS}_bucket[$__rate_interval])))",
        "p99",
        "s",
    ),
    Panel("Connections", f"sum({names.CONNECTIONS})", "open"),
    Panel(
        "Bytes a second",
        f"sum by (direction) (rate({names.BYTES}[$__rate_interval]))",
        "{{direction}}",
        "Bps",
    ),
    Panel("Policies in force", f"count by (digest) ({names.POLICY_INFO})", "{{digest}}"),
    Panel(
        "Policies that were not taken",
        f"sum(increase({names.POLICY_RELOAD_FAILURES}[$__rate_interval]))",
        "failures",
    ),
    Panel("Audit not yet durable", f"max({names.AUDIT_LAG})", "since", "s"),
    Panel("Workers by state", names.WORKERS, "{{state}}"),
    Panel("Live leases", names.LEASES_ACTIVE, "leases"),
    Panel("Workers that wait for a run", names.WORKERS_WAITING, "waiting"),
    Panel(
        "Offers a minute",
        f"sum by (became) (60 * rate({names.OFFERS}[$__rate_interval]))",
        "{{became}}",
    ),
    Panel(
        "Changes of state a minute",
        f"sum by (to, reason) (60 * rate({names.TRANSITIONS}[$__rate_interval]))",
        "{{to}}: {{reason}}",
    ),
    Panel(
        "From violation to durable quarantine, p99",
        "histogram_quantile(0.99, sum by (le) "
        f"(rate({names.QUARANTINE_LATENCY}_bucket[$__rate_interval])))",
        "p99",
        "s",
    ),
    Panel("Ended leases are dealt with after", names.REAPER_LAG, "lag", "s"),
    Panel(
        "Log lines dropped",
        f"sum(increase({names.EGRESS_LOG_DROPPED}[$__rate_interval]))",
        "proxy",
        more=((f"sum(increase({names.FLEET_LOG_DROPPED}[$__rate_interval]))", "fleet"),),
    ),
    Panel(
        "Events exported a minute",
        f"sum by (receiver, outcome) (60 * rate({names.EXPORT_EVENTS}[$__rate_interval]))",
        "{{receiver}}: {{outcome}}",
    ),
    Panel(
        "Exports that failed",
        f"sum by (receiver, problem) (increase({names.EXPORT_FAILURES}[$__rate_interval]))",
        "{{receiver}}: {{problem}}",
    ),
    Panel("Oldest event not exported", names.EXPORT_LAG, "{{receiver}}", "s"),
    Panel(
        "Spans of traces a minute",
        f"sum by (outcome) (60 * rate({names.EGRESS_SPANS}[$__rate_interval]))",
        "proxy: {{outcome}}",
        more=(
            (
                f"sum by (outcome) (60 * rate({names.FLEET_SPANS}[$__rate_interval]))",
                "fleet: {{outcome}}",
            ),
        ),
    ),
    Panel(
        "Certificates end in",
        f"min by (certificate) ({{__name__=~"
        f'"{names.FLEET_CERTIFICATE_EXPIRY}|{names.EGRESS_CERTIFICATE_EXPIRY}"}}) - time()',
        "{{certificate}}",
        "s",
        "stat",
    ),
)


def dashboard() -> bytes:
    """The whole file."""
    source = {"type": "prometheus", "uid": "${source}"}
    width = 24 // _ACROSS
    panels: list[dict[str, Any]] = [
        {
            "id": number + 1,
            "title": panel.title,
            "type": panel.kind,
            "datasource": source,
            "gridPos": {
                "x": width * (number % _ACROSS),
                "y": _HEIGHT * (number // _ACROSS),
                "w": width,
                "h": _HEIGHT,
            },
            "targets": [
                {"refId": chr(ord("A") + place), "expr": expression, "legendFormat": legend}
                for place, (expression, legend) in enumerate(panel.targets)
            ],
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        }
        for number, panel in enumerate(PANELS)
    ]
    variable = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}
    whole = {
        "uid": "palyra",
        "title": "Palyra Egress & Fleet",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": panels,
    }
    return json.dumps(whole, indent=1).encode() + b"\n"


def main() -> None:
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_bytes(dashboard())


if __name__ == "__main__":
    main()
