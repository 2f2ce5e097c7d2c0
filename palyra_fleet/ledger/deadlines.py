"""A heap of deadlines: the earliest first, one live entry per subject, no scans.

`due(now)` lists what is due without changing the heap (deciding mutates nothing); `drop_until(now)`
forgets it once the decision is applied. A deadline that moved later is rescheduled when its old
entry surfaces, so a heartbeat costs no heap operation. Times: Unix ms.
"""

import heapq
from dataclasses import dataclass, field
from enum import StrEnum


class DeadlineKind(StrEnum):
    """What happens at a deadline."""

    HEARTBEAT = "heartbeat"
    LEASE = "lease"
    DRAIN = "drain"
    GRANT = "grant"
    RELEASE = "release"
    OFFER = "offer"
    WAITING = "waiting"


type Subject = tuple[DeadlineKind, str]


@dataclass(slots=True)
class DeadlineHeap:
    """Deadlines by subject. Stale heap entries are told by `_current` and skipped."""

    _heap: list[tuple[int, DeadlineKind, str]] = field(default_factory=list)
    _queued: dict[Subject, int] = field(default_factory=dict)
    _current: dict[Subject, int] = field(default_factory=dict)

    def set(self, kind: DeadlineKind, subject_id: str, due_unix_ms: int) -> None:
        subject = (kind, subject_id)
        self._current[subject] = due_unix_ms
        queued = self._queued.get(subject)
        if queued is None or due_unix_ms < queued:
            self._push(subject, due_unix_ms)

    def cancel(self, kind: DeadlineKind, subject_id: str) -> None:
        self._current.pop((kind, subject_id), None)

    def at(self, kind: DeadlineKind, subject_id: str) -> int | None:
        """When this subject's deadline is."""
        return self._current.get((kind, subject_id))

    def due(self, now_unix_ms: int) -> tuple[Subject, ...]:
        """Subjects whose deadline is at or before `now`, earliest first. O(due), not O(all)."""
        found: set[Subject] = set()
        indices = [0]
        while indices:
            index = indices.pop()
            if index >= len(self._heap) or self._heap[index][0] > now_unix_ms:
                continue
            _, kind, subject_id = self._heap[index]
            if self._is_due((kind, subject_id), now_unix_ms):
                found.add((kind, subject_id))
            indices += (2 * index + 1, 2 * index + 2)
        return tuple(sorted(found, key=lambda subject: (self._current[subject], subject)))

    def drop_until(self, now_unix_ms: int) -> None:
        """Forget surfaced entries; reschedule those whose deadline moved later."""
        while self._heap and self._heap[0][0] <= now_unix_ms:
            due, kind, subject_id = heapq.heappop(self._heap)
            subject = (kind, subject_id)
            if self._queued.get(subject) != due:
                continue
            del self._queued[subject]
            current = self._current.get(subject)
            if current is not None and current > now_unix_ms:
                self._push(subject, current)
            else:
                self._current.pop(subject, None)

    def _is_due(self, subject: Subject, now_unix_ms: int) -> bool:
        current = self._current.get(subject)
        return current is not None and current <= now_unix_ms

    def _push(self, subject: Subject, due_unix_ms: int) -> None:
        self._queued[subject] = due_unix_ms
        heapq.heappush(self._heap, (due_unix_ms, *subject))
