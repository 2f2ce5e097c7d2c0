"""The hash chain of the audit log: how a line is made and how lines are checked. Pure.

A line is the canonical JSON (sorted keys, no spaces, ASCII) of an entry whose `sha256` is the
SHA-256 over the same JSON without that field; the entry names its predecessor's digest, so no line
can be changed, dropped, doubled or moved without breaking every later one. The first predecessor is
64 zeros; `seq` starts at 1 and grows by one. What the chain alone cannot show is that its newest
lines were cut off: signed checkpoints (`audit.checkpoint`) do, where they are kept elsewhere.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

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


class Step(NamedTuple):
    """One entry of a log that is walked: where it stands, and the chain before and after it."""

    entry: AuditFields
    before: ChainHead
    head: ChainHead
    where: str


def walk(
    lines: Iterable[bytes], name: str, start: ChainHead | None = ChainHead()
) -> Iterator[Step]:
    """Follow the chain over all lines. Raises ChainBroken at the first fault. A `start` of None
    takes the first line's word on what was before it: those lines are not there any more."""
    head = start
    for number, line in enumerate(lines, start=1):
        where = f"{name}:{number}"
        if not line.endswith(b"\n"):
            raise ChainBroken(f"{where}: the last line is torn")
        before = claimed_before(line, where) if head is None else head
        entry, head = follow(before, line, where)
        yield Step(entry, before, head, where)


def claimed_before(line: bytes, where: str) -> ChainHead:
    """What a line says of the one before it. Entry 1 has the genesis before it, whatever it says;
    a later one's word can only be taken."""
    try:
        entry = json.loads(line)
        before = ChainHead(int(entry["seq"]) - 1, str(entry["previous_sha256"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ChainBroken(f"{where}: not an audit entry") from error
    return before if before.seq > 0 else ChainHead()
