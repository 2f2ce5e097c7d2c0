"""A worker as the fake fleet keeps it: who it is, what it was given, and all that it said."""

from dataclasses import dataclass, field

from palyra_fleet.wire import models as wire
from palyra_fleet.wire.placement_models import WorkerOrder


@dataclass(slots=True)
class FakeWorker:
    worker_id: str
    public_key: bytes
    session_epoch: int = 1
    state: str = "available"
    quarantine_reason: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    orders: list[WorkerOrder] = field(default_factory=list)
    lease: wire.LeaseAnswer | None = None
    beats: list[wire.HeartbeatRequest] = field(default_factory=list)
    cleanups: list[wire.CleanupReport] = field(default_factory=list)
