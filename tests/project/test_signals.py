"""Dashboard and alerts against the table of metrics: nothing is asked for that nobody shows, and
nothing is shown that nobody looks at."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from palyra_fleet.wire.metric_names import EGRESS_METRICS, FLEET_METRICS, MetricKind
from scripts.make_dashboard import FILE as DASHBOARD
from scripts.make_dashboard import PANELS, dashboard

ALERTS = Path(__file__).parents[2] / "deploy" / "prometheus" / "palyra-alerts.yaml"
NAME = re.compile(r"palyra_(?:egress|fleet)_[a-z_]+")
LABELS = re.compile(r"(palyra_[a-z_]+)\{([^}]*)\}")
METRICS = EGRESS_METRICS | FLEET_METRICS


def rules() -> list[dict[str, object]]:
    groups = YAML(typ="safe").load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    return [*drawn(), *(str(rule["expr"]) for rule in rules())]


def drawn() -> list[str]:
    return [expression for panel in PANELS for expression, _ in panel.targets]


def base_of(name: str) -> str:
    """The metric behind a series: a histogram's series end in a word of their own."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return (
        base
        if METRICS.get(base, METRICS["palyra_fleet_workers"]).kind in {MetricKind.HISTOGRAM}
        else name
    )


def test_every_expression_asks_for_metrics_that_are_shown() -> None:
    asked = {base_of(name) for text in expressions() for name in NAME.findall(text)}
    assert asked <= set(METRICS)


def test_every_metric_has_a_panel_and_every_metric_that_can_be_bad_an_alert() -> None:
    in_panels = {base_of(n) for text in drawn() for n in NAME.findall(text)}
    in_alerts = {base_of(n) for rule in rules() for n in NAME.findall(str(rule["expr"]))}
    assert in_panels == set(METRICS)
    assert in_alerts == set(METRICS)


def test_every_label_that_is_asked_for_is_the_metrics_own() -> None:
    for text in expressions():
        for name, inside in LABELS.findall(text):
            asked = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", inside))
            assert asked <= set(METRICS[base_of(name)].labels), text


def test_no_expression_groups_by_a_name_that_rates_forget() -> None:
    """`rate` and `increase` drop `__name__`, so a panel of two counters has two targets."""
    for text in expressions():
        assert not ("__name__" in text and re.search(r"\b(rate|increase)\(", text)), text


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    named = [str(rule["alert"]) for rule in rules()]
    assert len(set(named)) == len(named)
    for rule in rules():
        notes = rule["annotations"]
        assert isinstance(notes, dict)
        assert set(notes) == {"summary", "action"}, rule["alert"]


def test_the_dashboard_is_what_its_table_makes_today() -> None:
    assert DASHBOARD.read_bytes() == dashboard(), "run `make reference`"
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in PANELS]
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEFGH"[: len(letters)])


def test_prometheus_itself_takes_the_alerts() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed, so Prometheus did not read the alerts")
    done = subprocess.run(
        [promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
