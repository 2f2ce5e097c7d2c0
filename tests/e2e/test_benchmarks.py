"""The benchmarks run and measure something in every cell; how fast is not a test's business."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.e2e.programs import Programs, programs

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WITHIN_S = 120.0


async def report_of(registry: Programs, name: str, *arguments: str) -> Any:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PALYRA_")}
    done = await registry.finished(
        *(sys.executable, BENCHMARKS / name, "--json", *arguments),
        environment=kept,
        within_s=WITHIN_S,
    )
    assert done.code == 0, done.err
    return json.loads(done.out)


async def test_every_cell_of_the_proxy_benchmark_has_answered_requests() -> None:
    async with programs() as registry:
        report = await report_of(
            registry, "bench_proxy.py", "--seconds", "0.5", "--rounds", "1", "--connections", "4"
        )
    assert len(report["works"]) == 3
    for row in report["works"]:
        assert set(row["cells"]) == {"direct", "mitmdump", "ours"}
        for name, cell in row["cells"].items():
            assert cell["requests"] > 0, (row["work"], name)
            assert (cell["proxy_cpu_us_per_request"] is None) is (name == "direct")


async def test_every_cell_of_the_quarantine_benchmark_has_a_latency() -> None:
    async with programs() as registry:
        report = await report_of(
            registry, "bench_quarantine.py", "--rounds", "1", "--tunnels", "1", "3"
        )
    assert set(report) == {"1", "3"}
    for (latency,) in report.values():
        assert set(latency) == {
            *("decided_ms", "refused_ms", "last_byte_ms", "stopped_ms", "server_end_ms"),
            *("cut_ms", "others_ms", "quarantined_ms", "told_ms", "bytes"),
        }
        assert min(latency.values()) >= 0
        assert min(latency["cut_ms"], latency["server_end_ms"]) > 0
        assert latency["stopped_ms"] <= latency["last_byte_ms"]


async def test_every_cell_of_the_node_benchmark_has_calls_and_streams() -> None:
    async with programs() as registry:
        rows = await report_of(
            registry,
            "bench_nodes.py",
            *("--streams", "3", "--connections", "2", "--seconds", "0.5"),
        )
    assert [row["kind"] for row in rows] == ["bare", "ours"]
    for row in rows:
        assert min(row["registers_per_s"], row["heartbeats_per_s"], row["beats"]) > 0, row
        assert row["beat_p99_ms"] >= row["beat_p50_ms"] > 0


async def test_the_flood_benchmark_measures_beside_nobody_and_beside_every_flood() -> None:
    async with programs() as registry:
        report = await report_of(registry, "bench_flood.py", "--seconds", "0.5")
    assert [row["beside"] for row in report] == ["nobody", "refusals", "chunks"]
    for row in report:
        assert row["requests"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["worst_ms"]
    assert min(row["flood"] for row in report[1:]) > 0  # before it is measured, at the latest


async def test_the_soak_samples_the_proxys_memory_and_every_tunnel_lives_to_the_end() -> None:
    async with programs() as registry:
        report = await report_of(registry, "soak_proxy.py", "--requests", "320", "--tunnels", "5")
    assert (report["requests"], report["tunnels"], len(report["samples_mib"])) == (320, 5, 20)
    assert min(report["samples_mib"]) > 0


async def test_every_round_of_the_two_proxies_benchmark_was_refused_and_cut() -> None:
    async with programs() as registry:
        report = await report_of(registry, "bench_two_proxies.py", "--rounds", "2", "--beats", "2")
    assert len(report["rounds"]) == 2
    for latency in report["rounds"]:
        assert set(latency) == {"refused_ms", "last_byte_ms", "cut_ms"}
        assert 0 <= latency["last_byte_ms"] <= latency["cut_ms"]
        assert latency["refused_ms"] > 0
    assert report["heartbeats"]["workers"] == 10
    assert report["heartbeats"]["per_s"] > 0


async def test_every_cell_of_the_benchmark_of_traces_was_measured() -> None:
    async with programs() as registry:
        report = await report_of(registry, "bench_traces.py", "--requests", "10", "--rounds", "1")
    ratios = {"off/off", "ratio 0", "ratio 0.1", "ratio 1"}
    assert set(report) == {"off us", "calls us", "spans dropped"} | ratios
    assert all(report[name] > 0 for name in report if name != "spans dropped")
