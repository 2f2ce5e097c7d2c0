"""Reading audit files: verify a whole log over all its files, and pick entries out of it.

A log whose oldest files were deleted begins where the rest begins: its first entry's word on its
predecessor is taken, everything after it is checked, and `Verified.first_seq` says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from palyra_egress.audit.chain import AuditFields, ChainBroken, ChainHead, Step, walk
from palyra_egress.audit.checkpoint import KIND, Checkpoint
from palyra_egress.audit.segments import segments

_OUTSIDE = "the checkpoint from outside"


@dataclass(frozen=True, slots=True)
class Verified:
    """What held: entries from `first_seq` to `head.seq`, and the checkpoints among them.

    `unsigned_tail` counts the entries after the last checkpoint, which only the chain vouches for.
    `signatures_checked` is False where no key was given.
    """

    head: ChainHead
    first_seq: int = 1
    files: int = 1
    checkpoints: int = 0
    unsigned_tail: int = 0
    signed_by: frozenset[str] = frozenset()
    signatures_checked: bool = False

    @property
    def entries(self) -> int:
        return self.head.seq - self.first_seq + 1


def verify_file(
    path: Path, public_key: bytes | None = None, outside: Checkpoint | None = None
) -> Verified:
    """Walk a log from its first entry to its last. Raises ChainBroken at the first fault, OSError.

    `public_key` (raw Ed25519) checks every checkpoint's signature. `outside` is a checkpoint that
    was kept elsewhere: the log must hold exactly the entry it covers.
    """
    files = segments(path)
    first_seq, head = 1, ChainHead()
    checkpoints, signed_seq, keys = 0, 0, set()
    for step in _steps(files):
        if head.seq == 0:
            first_seq = step.head.seq
        head = step.head
        if step.entry.get("kind") == KIND:
            found = Checkpoint.of(step.entry, step.where)
            if found.covers != step.before:
                raise ChainBroken(f"{step.where}: the checkpoint covers another entry")
            if public_key is not None:
                found.check(public_key, step.where)
            checkpoints, signed_seq = checkpoints + 1, head.seq
            keys.add(found.key_sha256)
        if outside is not None and head.seq == outside.covers.seq and head != outside.covers:
            raise ChainBroken(f"{step.where}: {_OUTSIDE} saw another entry {head.seq}")
    if outside is not None:
        _must_reach(outside, first_seq, head, path, public_key)
    return Verified(
        head=head,
        first_seq=first_seq,
        files=len(files),
        checkpoints=checkpoints,
        unsigned_tail=head.seq - max(signed_seq, first_seq - 1),
        signed_by=frozenset(keys),
        signatures_checked=public_key is not None,
    )


def entries(path: Path) -> Iterator[AuditFields]:
    """Every entry of a log, each checked against the one before. Raises ChainBroken or OSError."""
    return ({**step.entry, "sha256": step.head.sha256} for step in _steps(segments(path)))


def _steps(files: list[Path]) -> Iterator[Step]:
    """Every entry of the files in order; what was before the first is taken from it."""
    head: ChainHead | None = None
    for file in files:
        with file.open("rb") as lines:
            for step in walk(lines, str(file), head):
                head = step.head
                yield step


def _must_reach(
    outside: Checkpoint, first_seq: int, head: ChainHead, path: Path, public_key: bytes | None
) -> None:
    if public_key is not None:
        outside.check(public_key, _OUTSIDE)
    if head.seq < outside.covers.seq:
        raise ChainBroken(
            f"{path}: ends with entry {head.seq}, but {_OUTSIDE} saw entry {outside.covers.seq}:"
            " the end was cut off"
        )
    if outside.covers.seq < first_seq:
        raise ChainBroken(
            f"{path}: begins with entry {first_seq}, after what {_OUTSIDE} covers: it proves"
            " nothing here"
        )
