"""The metrics as Prometheus reads them: exactly the table's names, and labels of closed sets."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.signals.metrics import ProxyCounts, ProxyState, exposition
from palyra_egress.reasons import Reason
from palyra_fleet.wire.durations import BUCKETS_MS
from palyra_fleet.wire.metric_names import EGRESS_METRICS, FLEET_METRICS, MetricKind

STATE = ProxyState(3, "sha256:abc", 0.25, {"root": 2e9, "intermediate": 1.9e9})


def families(counts: ProxyCounts, state: ProxyState = STATE):
    text = exposition(counts, state).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_exactly_the_names_of_the_table_are_shown_with_their_kinds() -> None:
    shown = families(ProxyCounts())
    wanted = {
        name.removesuffix("_total") if row.kind is MetricKind.COUNTER else name: row.kind.value
        for name, row in EGRESS_METRICS.items()
    }
    assert {name: family.type for name, family in shown.items()} == wanted


def test_every_label_is_one_of_the_table() -> None:
    counts = ProxyCounts()
    for reason in Reason:
        counts.decisions[reason] += 1
    for family in families(counts).values():
        name = family.name if family.name in EGRESS_METRICS else f"{family.name}_total"
        allowed = set(EGRESS_METRICS[name].labels) | {"le"}
        for sample in family.samples:
            assert set(sample.labels) <= allowed


def test_what_was_counted_is_what_is_shown() -> None:
    counts = ProxyCounts()
    counts.decisions[Reason.ALLOWED] += 2
    counts.decisions[Reason.OBSERVED] += 1
    counts.decisions[Reason.HOST_NOT_ALLOWED] += 5
    counts.bytes[Direction.OUT] += 10
    counts.policy_reload_failures += 1
    for ms in (1, 3, 9_000):
        counts.durations.took(ms)
    shown = families(counts)
    decisions = {
        (s.labels["effect"], s.labels["reason"]): s.value
        for s in shown["palyra_egress_decisions"].samples
    }
    assert decisions == {
        ("allow", "egress.allowed"): 2,
        ("allow", "egress.observed"): 1,
        ("deny", "egress.host_not_allowed"): 5,
    }
    sent = {s.labels["direction"]: s.value for s in shown["palyra_egress_bytes"].samples}
    assert sent == {"out": 10, "in": 0}
    assert shown["palyra_egress_policy_reload_failures"].samples[0].value == 1
    durations = shown["palyra_egress_decision_duration_seconds"].samples
    by_bound = {s.labels["le"]: s.value for s in durations if s.name.endswith("_bucket")}
    assert len(by_bound) == len(BUCKETS_MS) + 1
    assert (by_bound["0.001"], by_bound["0.005"], by_bound["5.0"], by_bound["+Inf"]) == (1, 2, 2, 3)
    assert next(s.value for s in durations if s.name.endswith("_sum")) == 9.004


def test_without_a_policy_none_is_named() -> None:
    state = ProxyState(0, None, 0.0, {})
    assert families(ProxyCounts(), state)["palyra_egress_policy_info"].samples == []


def test_a_name_has_its_unit_and_its_program_and_stands_once() -> None:
    assert not set(EGRESS_METRICS) & set(FLEET_METRICS)
    for prefix, table in (("palyra_egress_", EGRESS_METRICS), ("palyra_fleet_", FLEET_METRICS)):
        for name, row in table.items():
            assert name.startswith(prefix)
            assert name.endswith("_total") is (row.kind is MetricKind.COUNTER)
            assert row.help.endswith(".")


def test_the_page_for_operators_lists_every_metric_with_kind_and_labels() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "signals.md").read_text()
    for name, row in EGRESS_METRICS.items():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        _, _, kind, labels, _ = line.split("|")
        assert kind.strip() == row.kind.value
        assert [word for word in row.labels if f"`{word}`" not in labels] == []
