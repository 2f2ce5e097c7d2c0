"""Streams: which event streams are open, whose they are, and how one is told or ended from outside.

A stream belongs to the certificate it was opened with. Bounded per device, per source address and
in all. Notices for a node wait in its streams, at most `MAX_NOTICES` each, the oldest given up
first: they are hints, and what they tell of is in force without them.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from palyra_fleet.identity.refusals import NodeRefusal
from palyra_fleet.nodes.capability_refusals import (
    CapabilityReason,
    CapabilityRefusal,
    CapabilityRefused,
)

MAX_NOTICES: Final = 64


class NoticeKind(StrEnum):
    """What a notice tells of."""

    QUARANTINED = "quarantined"
    LEASE_REVOKED = "lease_revoked"
    ROTATE_CERTIFICATE = "rotate_certificate"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a node is told without having asked. `subject_id`: worker, lease or fingerprint."""

    notice_id: str
    kind: NoticeKind
    subject_id: str
    reason: str
    issued_at_unix_ms: int


@dataclass(frozen=True, slots=True)
class StreamLimits:
    per_device: int = 4
    per_source: int = 256
    in_all: int = 10_000


@dataclass(slots=True, eq=False)
class EventStream:
    """One open stream. `ended_by` says why it must end."""

    device_id: str
    fingerprint: str
    source: str
    accepts_push: bool = False
    rotation_told: bool = False
    ended_by: NodeRefusal | CapabilityRefusal | None = None
    _notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=MAX_NOTICES))
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, notice: Notice) -> None:
        self._notices.append(notice)
        self._wake.set()

    def take_notices(self) -> list[Notice]:
        taken = list(self._notices)
        self._notices.clear()
        return taken

    def end(self, why: NodeRefusal | CapabilityRefusal) -> None:
        self.ended_by = self.ended_by or why
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def woken(self) -> None:
        """Until there is something to say, or the stream must end."""
        await self._wake.wait()
        self._wake.clear()


class StreamRegistry:
    """Every open stream."""

    def __init__(self, limits: StreamLimits | None = None) -> None:
        self._limits = limits or StreamLimits()
        self._of_device: dict[str, list[EventStream]] = {}
        self._of_source: Counter[str] = Counter()
        self._closing = False
        self.changes = 0  # streams that were opened or closed

    def __len__(self) -> int:
        return self._of_source.total()

    def open(self, device_id: str, fingerprint: str, source: str) -> EventStream:
        """A place for a stream. Raises CapabilityRefused."""
        if self._closing:
            raise CapabilityRefused(CapabilityRefusal(CapabilityReason.CLOSING))
        limits = self._limits
        if (
            len(self._of_device.get(device_id, ())) >= limits.per_device
            or self._of_source[source] >= limits.per_source
            or len(self) >= limits.in_all
        ):
            raise CapabilityRefused(CapabilityRefusal(CapabilityReason.STREAMS_FULL))
        stream = EventStream(device_id, fingerprint, source)
        self.changes += 1
        self._of_device.setdefault(device_id, []).append(stream)
        self._of_source[source] += 1
        return stream

    def close(self, stream: EventStream) -> None:
        """The stream is over; its place is free."""
        streams = self._of_device[stream.device_id]
        streams.remove(stream)
        self.changes += 1
        if not streams:
            del self._of_device[stream.device_id]
        self._of_source[stream.source] -= 1
        if not self._of_source[stream.source]:
            del self._of_source[stream.source]

    def connected(self, device_id: str) -> bool:
        return device_id in self._of_device

    def wake(self, device_id: str) -> None:
        """There is work for this node."""
        for stream in self._of_device.get(device_id, ()):
            stream.wake()

    def notify(self, device_id: str, notice: Notice) -> bool:
        """Tell a node; False if no stream of it is open."""
        for stream in self._of_device.get(device_id, ()):
            stream.put(notice)
        return self.connected(device_id)

    def end(self, device_id: str, fingerprints: Iterable[str] | None, why: NodeRefusal) -> None:
        """End a device's streams: all of them, or those of some certificates."""
        wanted = None if fingerprints is None else frozenset(fingerprints)
        for stream in self._of_device.get(device_id, ()):
            if wanted is None or stream.fingerprint in wanted:
                stream.end(why)

    def end_all(self) -> None:
        """The service closes: no new streams, and the open ones end."""
        self._closing = True
        for streams in self._of_device.values():
            for stream in streams:
                stream.end(CapabilityRefusal(CapabilityReason.CLOSING))
