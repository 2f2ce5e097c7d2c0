"""A disk without room refuses entries, leaves whole lines, and is used again when it has room."""

import json
import subprocess
import sys

from palyra_egress.audit.reading import entries


def test_a_full_disk_refuses_until_it_has_room_again_and_the_chain_goes_on(tmp_path):
    path = tmp_path / "audit.jsonl"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.egress.audit.full_disk", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ran.stdout) == {
        "refused": [True, True],
        "whole_lines_only": True,
        "problem_when_full": "there is no room for the audit log",
        "broken_when_full": False,
        "problem_after": None,
    }
    assert [entry["n"] for entry in entries(path)] == [1, 4]
