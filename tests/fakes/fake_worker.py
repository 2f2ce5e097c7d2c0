"""A worker as the fake fleet keeps it: who it is, what it was given, and all that it said."""

from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.wire import models as wire
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.placement_models import WorkerOrder

NO_DIGEST: Final = "0" * 64


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


def view_of(worker: FakeWorker) -> wire.WorkerView:
    """What operators see of it."""
    return wire.WorkerView(
        worker_id=worker.worker_id,
        state=worker.state,
        admission="active",
        eligibility="eligible",
        liveness="live",
        work="idle" if worker.lease is None else "busy",
        attestation_epoch=1,
        session_epoch=worker.session_epoch,
        attested_until_unix_ms=0,
        key_sha256=thumbprint_sha256(worker.public_key),
        artifact_digest_sha256=NO_DIGEST,
        attestor="launcher",
        capabilities=(),
        labels=dict(worker.labels),
        binding_proxy_id=None,
        binding_level="none",
        lease_id=worker.lease.lease_id if worker.lease else None,
        run_id=worker.lease.run_id if worker.lease else None,
        fence=worker.lease.fence if worker.lease else None,
        quarantine_reason=worker.quarantine_reason,
        quarantined_at_unix_ms=None,
        quarantine_evidence_sha256=None,
        quarantine_decision_id=None,
    )
