"""The part of a fake fleet that is asked for snapshots: it keeps nothing that could be saved."""

from typing import NoReturn

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.snapshot_models import SnapshotView


class NoSnapshots:
    """Mixed into `FakeFleetService`."""

    def _enter(self, call: str) -> None:
        raise NotImplementedError

    async def save_snapshot(self, actor: str, reason: str) -> NoReturn:
        self._enter("save_snapshot")
        raise FleetRefusal(FleetReason.SNAPSHOTS_FULL, "this fleet is in memory alone")

    async def snapshots(self) -> tuple[SnapshotView, ...]:
        self._enter("snapshots")
        return ()
