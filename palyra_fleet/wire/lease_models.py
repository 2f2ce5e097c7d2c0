"""Leases as operators see them: those that live, and those that have ended. Times: Unix ms."""

from enum import StrEnum

from palyra_fleet.wire.models import Ulid, UnixMs, WireModel


class LeasesThat(StrEnum):
    """Which leases a list holds."""

    LIVE = "live"
    ENDED = "ended"
    ALL = "all"


class LeaseView(WireModel):
    """A lease. `state` is `assigned` or `busy` while it lives, and then how it ended: `completed`,
    `cleanup_failed`, `expired`, `revoked` or `orphaned`."""

    lease_id: Ulid
    fence: int
    worker_id: Ulid
    run_id: str
    state: str
    egress_profile: str
    principal: str
    grant_id: Ulid
    granted_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs
    grant_expires_at_unix_ms: UnixMs
    ended_at_unix_ms: UnixMs | None = None
