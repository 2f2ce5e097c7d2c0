"""The exporters of a running fleet: started beside it, ended before it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from palyra_fleet.exports.cursor import Cursor
from palyra_fleet.exports.exporter import Exporter
from palyra_fleet.exports.receivers import receivers
from palyra_fleet.exports.settings import ExportSettings
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.signals.export_counts import ExportCounts, ExportProblem
from palyra_fleet.tasks import spawn

DIRECTORY: Final = "exports"
"""Below the fleet's state: a cursor for each receiver."""


@asynccontextmanager
async def exporting(
    fleet: FleetService, settings: ExportSettings, state_dir: Path
) -> AsyncIterator[None]:
    """Export until the block ends. Raises ExportSettingsRefused before anything runs."""
    made = receivers(settings)
    tasks: list[asyncio.Task[None]] = []
    try:
        for name, receiver in made.items():
            counts = fleet.counts.exports.setdefault(name, ExportCounts())
            cursor = await asyncio.to_thread(Cursor.open, state_dir / DIRECTORY / f"{name}.json")
            task = spawn(Exporter(name, fleet, receiver, cursor, counts).run(), f"export to {name}")
            task.add_done_callback(partial(_ended, counts))
            tasks.append(task)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for receiver in made.values():
            await receiver.close()


def _ended(counts: ExportCounts, task: asyncio.Task[None]) -> None:
    """A fault of ours: nothing else ends an exporter."""
    if not task.cancelled():
        counts.failed(ExportProblem.STOPPED)
