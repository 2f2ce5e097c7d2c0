"""What a run was refused, told from the audit log."""

import json
from pathlib import Path

from palyra_egress.audit.summary import MAX_LINES, LogPlace, refusals_of_run

RULE = {"rule_id": "api", "policy_file": "p.yaml", "policy_line": 7}


def entry(**fields: object) -> bytes:
    whole = {
        "kind": "verdict",
        "effect": "deny",
        "run_id": "run-1",
        "method": "GET",
        "target": "https://a.example:443/x",
        "reason": "egress.path_not_allowed",
        **fields,
    }
    return json.dumps(whole).encode() + b"\n"


def test_refusals_are_counted_and_name_their_rule(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    early = {"method": None, "target": None, "reason": "egress.no_identity"}
    log.write_bytes(entry(**RULE) * 2 + entry(**early))
    assert refusals_of_run(log, LogPlace(), "run-1") == [
        "2 x GET https://a.example:443/x  egress.path_not_allowed (rule api, p.yaml:7)",
        "1 x a request  egress.no_identity",
    ]


def test_other_runs_what_was_allowed_and_what_came_before_do_not_count(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    before = entry()
    log.write_bytes(before + entry(run_id="run-2") + entry(effect="allow") + b"torn {")
    assert refusals_of_run(log, LogPlace(log.stat().st_ino, len(before)), "run-1") == []


def test_a_log_that_cannot_be_read_tells_nothing(tmp_path: Path):
    assert refusals_of_run(tmp_path / "missing", LogPlace(), "run-1") == []


def test_a_flood_of_refusals_is_told_in_a_few_lines(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    log.write_bytes(b"".join(entry(target=f"https://{n}.example:443/") for n in range(20)))
    told = refusals_of_run(log, LogPlace(), "run-1")
    assert len(told) == MAX_LINES + 1
    assert told[-1] == f"and {20 - MAX_LINES} more"
