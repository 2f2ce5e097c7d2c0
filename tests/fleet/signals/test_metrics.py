"""The fleet's metrics: what is counted, and that it is what Prometheus reads."""

from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from palyra_fleet.client import FleetProblem, OperatorClient, WorkerAction
from palyra_fleet.ledger.facts import WorkerLifecycleState
from palyra_fleet.signals.counts import FleetCounts
from palyra_fleet.signals.metrics import FleetState, exposition
from palyra_fleet.wire.metric_names import FLEET_METRICS, MetricKind
from tests.fakes.raw_http import ask
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fleet.api.test_with_real_fleet import registered


def families(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and labels (without a histogram's buckets)."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "le")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def scraped(fleet: RealFleet) -> dict[str, dict[tuple[str, ...], float]]:
    headers = {"Authorization": f"Bearer {fleet.token}"}
    answer = await ask(fleet.server.admin_url, "GET", "/metrics", b"", headers)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return families(answer.body)


def test_exactly_the_metrics_of_the_table_are_shown_with_their_kinds() -> None:
    shown = exposition(FleetCounts(), FleetState(Counter(), 0, {"authority_0": 1}))
    kinds = {
        one.name + ("_total" if one.type == "counter" else ""): one.type
        for one in text_string_to_metric_families(shown.decode())
    }
    assert kinds == {name: row.kind.value for name, row in FLEET_METRICS.items()}
    assert {MetricKind(kind) for kind in kinds.values()} == set(MetricKind)


async def test_a_workers_way_is_counted_by_states_and_reasons() -> None:
    async with real_fleet() as fleet:
        before = await scraped(fleet)
        states = before["palyra_fleet_workers"]
        assert states == {(state.value,): 0 for state in WorkerLifecycleState}
        async with registered(fleet):
            (worker,) = await fleet.operator.workers()
            await fleet.operator.act(WorkerAction.QUARANTINE, worker.worker_id, "to see it")
            after = await scraped(fleet)
    assert after["palyra_fleet_workers"][("quarantined",)] == 1
    counted = after["palyra_fleet_transitions_total"]
    assert counted[("none", "worker.registered", "available")] == 1  # from, reason, to
    assert counted[("available", "worker.quarantined_by_operator", "quarantined")] == 1


async def test_numbers_are_for_principals_only() -> None:
    async with real_fleet() as fleet:
        async with OperatorClient(fleet.server.admin_url, "x" * 43) as stranger:
            with pytest.raises(FleetProblem) as refused:
                await stranger.who_am_i()
        assert refused.value.status == 401
        assert (await ask(fleet.server.admin_url, "GET", "/metrics")).status == 401


def test_the_page_for_operators_lists_every_metric_with_kind_and_labels() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "signals.md").read_text()
    for name, row in FLEET_METRICS.items():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        assert f"| `{name}` | {row.kind.value} | {labels} |\n" in page
