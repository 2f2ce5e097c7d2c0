"""The JSON bodies about snapshots that the fleet saved beside its store. Times: Unix ms."""

from palyra_fleet.wire.models import ShortText, Ulid, UnixMs, WireModel


class SaveSnapshot(WireModel):
    """Asks for a snapshot."""

    reason: ShortText


class SnapshotView(WireModel):
    """One snapshot: where it lies, below the fleet's state directory, and what it holds, all of it
    checked when it was saved. `seq` is the last entry of the event log in it; `why` and `saved_by`
    are those of who asked."""

    snapshot_id: Ulid
    file: str
    saved_at_unix_ms: UnixMs
    saved_by: str
    why: str
    size_bytes: int
    sha256: str
    schema_version: int
    epoch: int
    highest_fence: int
    seq: int
    last_event_sha256: str
    workers: int
    quarantined: int
    banned: int


class SnapshotList(WireModel):
    """The newest first; there are never more than the fleet keeps."""

    items: tuple[SnapshotView, ...]
