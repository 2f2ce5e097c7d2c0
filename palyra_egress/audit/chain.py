"""The hash chain of the audit log: how a line is made and how lines are checked. Pure.

A line is the canonical JSON (sorted keys, no spaces, ASCII) of an entry whose `sha256` is the
SHA-256 over the same JSON without that field; the entry names its predecessor's digest, so no line
can be changed, dropped, doubled or moved without breaking every later one. The first predecessor is
64 zeros; `seq` starts at 1 and grows by one. What the chain alone cannot show is that its newest
lines were cut off: for that, keep the last digest elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from palyra_egress.errors import OperatorMustAct

GENESIS_SHA256: Final = "0" * 64

type AuditValue = str | int | bool | list[str] | None
type AuditFields = dict[str, AuditValue]


class ChainBroken(OperatorMustAct):
    """A line does not follow from the one before it. Says which line and what was expected."""


@dataclass(frozen=True, slots=True)
class ChainHead:
    """Where the chain stands: the sequence number and digest of its last line."""

    seq: int = 0
    sha256: str = GENESIS_SHA256


def _canonical(entry: AuditFields) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def link(head: ChainHead, fields: AuditFields) -> tuple[bytes, ChainHead]:
    """The next line (with its newline) for `fields`, and the new head."""
    entry = {**fields, "seq": head.seq + 1, "previous_sha256": head.sha256}
    digest = hashlib.sha256(_canonical(entry)).hexdigest()
    line = _canonical({**entry, "sha256": digest}) + b"\n"
    return line, ChainHead(head.seq + 1, digest)


def follow(head: ChainHead, line: bytes, where: str) -> tuple[AuditFields, ChainHead]:
    """Check one line against the head before it; `where` is used in the error."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ChainBroken(f"{where}: not a JSON line") from error
    if not isinstance(entry, dict):
        raise ChainBroken(f"{where}: expected a JSON object")
    claimed = entry.pop("sha256", None)
    if entry.get("seq") != head.seq + 1:
        raise ChainBroken(f"{where}: seq is {entry.get('seq')}; expected {head.seq + 1}")
    if entry.get("previous_sha256") != head.sha256:
        raise ChainBroken(f"{where}: does not name the line before it; a line is missing or moved")
    digest = hashlib.sha256(_canonical(entry)).hexdigest()
    if claimed != digest:
        raise ChainBroken(f"{where}: the digest does not match; the line was changed")
    if _canonical({**entry, "sha256": digest}) != line.rstrip(b"\n"):
        raise ChainBroken(f"{where}: not in canonical form; the line was rewritten")
    return entry, ChainHead(head.seq + 1, digest)


def verify_lines(lines: Iterable[bytes], name: str) -> ChainHead:
    """Walk all lines from the beginning; the head, or ChainBroken at the first fault."""
    head = ChainHead()
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            raise ChainBroken(f"{name}:{number}: the last line is torn")
        _, head = follow(head, line, f"{name}:{number}")
    return head
