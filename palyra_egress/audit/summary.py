"""What was refused to one run, in a few lines for the person at the terminal.

Reads the audit log from an offset on (the log may be long, and only the run is of interest) and
does not check its chain: `audit verify` does. A line that is not an entry is passed over.
"""

import json
from collections import Counter
from pathlib import Path

MAX_LINES = 8


def refusals_of_run(path: Path, offset: int, run_id: str) -> list[str]:
    """`3 x GET https://… egress.path_not_allowed (rule packages, policy.yaml:12)`, most first.

    Empty when nothing was refused, or when the log cannot be read from here.
    """
    counts: Counter[str] = Counter()
    try:
        with path.open("rb") as lines:
            lines.seek(offset)
            for line in lines:
                if (described := _describe(line, run_id)) is not None:
                    counts[described] += 1
    except OSError:
        return []
    told = [f"{count} x {what}" for what, count in counts.most_common(MAX_LINES)]
    if len(counts) > MAX_LINES:
        told.append(f"and {len(counts) - MAX_LINES} more")
    return told


def _describe(line: bytes, run_id: str) -> str | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.get("run_id") != run_id:
        return None
    if entry.get("kind") != "verdict" or entry.get("effect") != "deny":
        return None
    asked = f"{entry['method']} {entry['target']}" if entry.get("target") else "a request"
    rule = ""
    if entry.get("rule_id"):
        rule = f" (rule {entry['rule_id']}, {entry.get('policy_file')}:{entry.get('policy_line')})"
    return f"{asked}  {entry.get('reason')}{rule}"
