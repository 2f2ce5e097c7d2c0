"""Hands the event log on to one receiver: in order, at least once, for ever.

The log itself is the queue: entries are read from the store behind a durable cursor, a bounded
batch at a time, after they are durable there. So a receiver that is dead costs no memory and no
command of the fleet waits for it; what it missed comes when it is back. A batch that is not taken
is sent again, after `FIRST_WAIT_S` doubling to `MOST_WAIT_S`. Entries that went into archive files
meanwhile are passed over, counted and told. Times: Unix ms.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from palyra_fleet.exports.cursor import Cursor
from palyra_fleet.exports.receiver import Receiver, Undelivered
from palyra_fleet.logs.fields import Field, told
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.signals.export_counts import ExportCounts, ExportProblem
from palyra_fleet.wire.models import EventView

MAX_BATCH: Final = 100
POLL_EVERY_S: Final = 1.0
FIRST_WAIT_S: Final = 1.0
MOST_WAIT_S: Final = 300.0
_log = logging.getLogger(__name__)


class EventSource(Protocol):
    """Where entries come from."""

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        """Durable entries after `after_seq`, oldest first. Raises FleetRefusal."""


@dataclass(slots=True)
class Exporter:
    """One receiver's. `run` it as a task."""

    name: str
    source: EventSource
    receiver: Receiver
    cursor: Cursor
    counts: ExportCounts
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    _compared: bool = False
    _most: int = MAX_BATCH

    async def run(self) -> None:
        """For ever."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                found = await self.step()
            except Undelivered as error:
                self._tell_failure(error.problem)
                await self.pause(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 spread, no secret
                wait_s = min(wait_s * 2, MOST_WAIT_S)
                continue
            wait_s = FIRST_WAIT_S
            if not found:
                await self.pause(POLL_EVERY_S)

    async def step(self) -> bool:
        """Deliver one batch; False if there was nothing. Raises Undelivered."""
        await self._compare()
        entries = await self._read(self.cursor.seq, self._most)
        if entries:
            self.counts.waiting_since_unix_ms = entries[0].at_unix_ms
            self._pass_over(entries[0])
            await self._deliver(entries)
        await self._save()
        if not entries:
            self.counts.caught_up()
        return bool(entries)

    async def _deliver(self, entries: tuple[EventView, ...]) -> None:
        try:
            await self.receiver.deliver(entries)
        except Undelivered as error:
            if error.problem is ExportProblem.TOO_LARGE:
                self._most = max(1, len(entries) // 2)
            raise
        self._most = MAX_BATCH
        self.cursor.move(entries[-1].seq, entries[-1].sha256)
        if self.counts.problem is not None:
            _log.warning("events are exported again to %s", self.name, extra=self._extra())
        self.counts.took(len(entries))

    async def _save(self) -> None:
        if self.cursor.is_saved:
            return
        try:
            await asyncio.to_thread(self.cursor.save)
        except OSError:
            raise Undelivered(ExportProblem.CURSOR) from None

    async def _read(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        try:
            return await self.source.events(after_seq, limit)
        except FleetRefusal:
            raise Undelivered(ExportProblem.STORE) from None

    async def _compare(self) -> None:
        """Once: is the log still the one that was exported? If not, it is sent from its beginning:
        the digest of each entry tells a receiver what it has."""
        if self._compared or self.cursor.seq == 0:
            self._compared = True
            return
        last = await self._read(self.cursor.seq - 1, 1)
        archived = last and last[0].seq > self.cursor.seq
        if not archived and (not last or last[0].sha256 != self.cursor.sha256):
            text = "the event log is not the one that was exported to %s: all of it is sent"
            _log.warning(text, self.name, extra=self._extra())
            self.cursor.begin_again()
        self._compared = True

    def _pass_over(self, first: EventView) -> None:
        missing = first.seq - self.cursor.seq - 1
        if missing and self.cursor.seq:
            self.counts.skipped += missing
            text = "%d events went into the archive before %s took them"
            _log.error(text, missing, self.name, extra=self._extra())
        self.cursor.move(first.seq - 1, first.previous_sha256)

    def _tell_failure(self, problem: ExportProblem) -> None:
        if self.counts.problem is not problem:
            text = "events are not exported to %s: %s"
            _log.warning(text, self.name, problem.value, extra=self._extra())
        self.counts.failed(problem)

    def _extra(self) -> dict[str, object]:
        return dict(told({Field.RECEIVER: self.name}))
