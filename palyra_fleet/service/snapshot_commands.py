"""What principals may ask about snapshots: have one saved beside the store, and list them.

Mixed into `FleetService`. One at a time, not more often than every ten seconds, a bounded number;
the file stays on the fleet's machine. Each that was saved is an event. Times: Unix ms.
"""

import asyncio
import logging
from typing import Final

from ulid import ULID

from palyra_fleet.ledger.decision import Detail, EventReason
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.operator_commands import OperatorCommands
from palyra_fleet.store import snapshot_shelf as shelf
from palyra_fleet.store.protocol import StateUnusable, StoreFailed
from palyra_fleet.store.snapshot import SnapshotSummary
from palyra_fleet.store.snapshot_process import save_apart
from palyra_fleet.wire.snapshot_models import SnapshotView

_log = logging.getLogger(__name__)
MIN_BETWEEN_MS: Final = 10_000


class SnapshotCommands(OperatorCommands):
    """Snapshots beside the store."""

    _saving = False
    _saved_at_unix_ms: int | None = None

    async def save_snapshot(self, actor: str, reason: str) -> SnapshotView:
        """Save, check and note one; it is durable and an event when this returns."""
        self._refuse_haste()
        self._saving = True
        try:
            view = await self._save(actor, reason)
        finally:
            self._saving, self._saved_at_unix_ms = False, self._now()
        detail: Detail = {
            "file": view.file,
            "sha256": view.sha256,
            "epoch": view.epoch,
            "seq": view.seq,
            "why": reason,
        }
        await self.record_event(EventReason.SNAPSHOT_SAVED, actor, detail)
        return view

    async def snapshots(self) -> tuple[SnapshotView, ...]:
        """The newest first."""
        return await asyncio.to_thread(shelf.listed, self._settings.state_dir)

    def _refuse_haste(self) -> None:
        if self._saving:
            raise FleetRefusal(FleetReason.SNAPSHOT_BUSY, "a snapshot is being saved")
        last = self._saved_at_unix_ms
        if last is not None and self._now() - last < MIN_BETWEEN_MS:
            text = f"one was asked for less than {MIN_BETWEEN_MS // 1000} s ago"
            raise FleetRefusal(FleetReason.SNAPSHOT_BUSY, text)

    async def _save(self, actor: str, reason: str) -> SnapshotView:
        state_dir, now = self._settings.state_dir, self._now()
        snapshot_id = str(ULID.from_timestamp(now))
        try:
            await asyncio.to_thread(shelf.prepare, state_dir)
            target = state_dir / shelf.file_of(snapshot_id)
            size = await asyncio.to_thread(shelf.size_of_store, state_dir)
            summary = await save_apart(state_dir, target, size)
            size_bytes = (await asyncio.to_thread(target.stat)).st_size
            view = _view(snapshot_id, actor, reason, now, summary, size_bytes)
            await asyncio.to_thread(shelf.put_note, state_dir, view)
        except shelf.NoRoom as full:
            raise FleetRefusal(FleetReason.SNAPSHOTS_FULL, str(full)) from full
        except (StateUnusable, StoreFailed, OSError) as error:
            _log.error("a snapshot could not be saved: %s", error)
            text = "the snapshot could not be saved; the fleet's log says why"
            raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, text) from error
        return view


def _view(
    snapshot_id: str, actor: str, reason: str, now: int, summary: SnapshotSummary, size_bytes: int
) -> SnapshotView:
    return SnapshotView(
        snapshot_id=snapshot_id,
        file=shelf.file_of(snapshot_id),
        saved_at_unix_ms=now,
        saved_by=actor,
        why=reason,
        size_bytes=size_bytes,
        sha256=summary.sha256,
        schema_version=summary.schema_version,
        epoch=summary.epoch,
        highest_fence=summary.highest_fence,
        seq=summary.events,
        last_event_sha256=summary.last_event_sha256,
        workers=summary.workers,
        quarantined=summary.quarantined,
        banned=summary.banned,
    )
