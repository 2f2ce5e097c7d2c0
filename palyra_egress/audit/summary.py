"""What was refused to one run, in a few lines for the person at the terminal.

Reads the audit log from a place on (the log may be long, and only the run is of interest), also
into the next file where the log was rotated meanwhile, and does not check its chain: `audit verify`
does. A line that is not an entry is passed over.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from palyra_egress.audit.segments import segments

MAX_LINES = 8


class LogPlace(NamedTuple):
    """A place in a log: a file, named by its inode, and an offset in bytes."""

    inode: int = 0
    offset: int = 0


def end_of(path: Path) -> LogPlace:
    """Where the log ends now; its beginning where there is none."""
    try:
        found = path.stat()
    except OSError:
        return LogPlace()
    return LogPlace(found.st_ino, found.st_size)


def refusals_of_run(path: Path, since: LogPlace, run_id: str) -> list[str]:
    """`3 x GET https://… egress.path_not_allowed (rule packages, policy.yaml:12)`, most first.

    Empty when nothing was refused, or when the log cannot be read from here.
    """
    counts: Counter[str] = Counter()
    try:
        for line in _lines_since(path, since):
            if (described := _describe(line, run_id)) is not None:
                counts[described] += 1
    except OSError:
        return []
    told = [f"{count} x {what}" for what, count in counts.most_common(MAX_LINES)]
    if len(counts) > MAX_LINES:
        told.append(f"and {len(counts) - MAX_LINES} more")
    return told


def _lines_since(path: Path, since: LogPlace) -> Iterator[bytes]:
    files = segments(path)
    begun = next((i for i, file in enumerate(files) if file.stat().st_ino == since.inode), None)
    for number, file in enumerate(files[begun or 0 :]):
        with file.open("rb") as lines:
            if number == 0 and begun is not None:
                lines.seek(since.offset)
            yield from lines


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
