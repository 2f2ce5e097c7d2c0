"""The hash chain of the event log: each entry names the one before by its SHA-256.

An entry's digest is over its canonical JSON (sorted keys, no spaces, UTF-8) without the digest
itself; the first follows 64 zeros. Whoever holds one digest can tell any change before it. Pure.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from palyra_fleet.store.protocol import ChainBroken
from palyra_fleet.wire.models import EventView

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The end of the chain: entries so far and the last one's digest."""

    seq: int = 0
    sha256: str = GENESIS


class ChainedEvent(Protocol):
    """What the log says of one change, whoever's it is."""

    @property
    def reason(self) -> StrEnum: ...
    @property
    def actor(self) -> str: ...
    @property
    def worker_id(self) -> str | None: ...
    @property
    def lease_id(self) -> str | None: ...
    @property
    def detail(self) -> Mapping[str, str | int | bool | None]: ...


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def entry_sha256(entry: EventView) -> str:
    """The digest an entry must carry."""
    content = entry.model_dump(exclude={"sha256"})
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def link(head: ChainHead, event: ChainedEvent, at_unix_ms: int) -> EventView:
    """The next entry."""
    unsigned = EventView(
        seq=head.seq + 1,
        at_unix_ms=at_unix_ms,
        reason=event.reason.value,
        actor=event.actor,
        worker_id=event.worker_id,
        lease_id=event.lease_id,
        detail=dict(event.detail),
        previous_sha256=head.sha256,
        sha256=GENESIS,
    )
    return unsigned.model_copy(update={"sha256": entry_sha256(unsigned)})


def link_all(
    head: ChainHead, events: Iterable[ChainedEvent], at_unix_ms: int
) -> tuple[tuple[EventView, ...], ChainHead]:
    """All entries in order, and the new end of the chain."""
    entries: list[EventView] = []
    for event in events:
        entry = link(head, event, at_unix_ms)
        entries.append(entry)
        head = ChainHead(entry.seq, entry.sha256)
    return tuple(entries), head


def follow(head: ChainHead, entries: Iterable[EventView]) -> ChainHead:
    """Walk entries from `head`. Raises ChainBroken at the first that does not fit."""
    for entry in entries:
        fits = entry.seq == head.seq + 1 and entry.previous_sha256 == head.sha256
        if not fits or entry.sha256 != entry_sha256(entry):
            raise ChainBroken(f"event {head.seq + 1} does not follow the one before or was changed")
        head = ChainHead(entry.seq, entry.sha256)
    return head
