"""The benchmark of leak detection runs and prints every cell; no number is tested."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_leaks.py"


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--megabytes", "1", "--rounds", "1", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=PROGRAM.parents[1],
    )
    return done.stdout


def test_every_cell_was_measured() -> None:
    found = json.loads(_run("--json"))
    assert set(found["seconds"]) == {"text", "json", "base64", "random", "percent"}
    for row in found["seconds"].values():
        assert set(row) == {"lower", "hash", "0", "10", "1000"}
        assert min(row.values()) > 0
    assert found["gzip_seconds"] > 0


def test_the_table_has_ratios_of_every_body() -> None:
    assert _run().count(" plain passes") == 10
