"""Reading audit files: verify a whole one, and pick entries out of it."""

from collections.abc import Iterator
from pathlib import Path

from palyra_egress.audit.chain import AuditFields, ChainHead, follow, verify_lines


def verify_file(path: Path) -> ChainHead:
    """Walk a log from its first line. Raises ChainBroken at the first fault, or OSError."""
    with path.open("rb") as lines:
        return verify_lines(lines, str(path))


def entries(path: Path) -> Iterator[AuditFields]:
    """Every entry of a log, each checked against the one before. Raises ChainBroken or OSError."""
    head = ChainHead()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            entry, head = follow(head, line, f"{path}:{number}")
            yield entry
