"""What an operator may ask about snapshots. Mixed into `OperatorClient`."""

from typing import Final

from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.snapshot_models import SaveSnapshot, SnapshotList, SnapshotView

_WAIT_MS: Final = 90 * 60_000
"""How long a large state may take to be saved and checked."""


class SnapshotCalls(FleetClient):
    """Snapshots beside the fleet's store."""

    async def save_snapshot(self, reason: str) -> SnapshotView:
        """Have one saved; answers once it is checked and durable."""
        request = SaveSnapshot(reason=reason)
        return await self.call(
            "POST", "/v1/snapshot", SnapshotView, request, extra_wait_ms=_WAIT_MS, once=True
        )

    async def snapshots(self) -> tuple[SnapshotView, ...]:
        """Those there are, the newest first."""
        return (await self.call("GET", "/v1/snapshot", SnapshotList)).items
