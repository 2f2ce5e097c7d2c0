"""The benchmark of the judge runs and prints every cell; what the numbers are is not tested."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_decide.py"


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--quick", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=PROGRAM.parents[1],
    )
    return done.stdout


def test_json_has_every_cell() -> None:
    result = json.loads(_run("--json"))
    cells = {(cell["rules"], cell["case"], cell["judge"]) for cell in result["cells"]}
    assert cells == {
        (rules, case, judge)
        for rules in (10, 100)
        for case in ("allow", "deny host", "deny method")
        for judge in ("palyra", "first match", "regex union")
    }
    assert all(cell["ns"] > 0 and cell["ratio"] > 0 for cell in result["cells"])
    assert set(result["growth"]) == set(result["is_flat"]) == {"allow", "deny host", "deny method"}
    assert result["refusal_ns"] > 0 and result["audit_line_bytes"] > 100


def test_the_table_has_a_line_for_every_cell_and_says_whether_it_is_flat() -> None:
    lines = _run().splitlines()
    assert len([line for line in lines if "first match" in line]) == 6
    assert len([line for line in lines if line.rstrip().endswith("flat")]) == 3
    assert any(line.startswith("deny flood: ") for line in lines)
