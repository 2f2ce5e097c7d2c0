"""Placing a run on a worker that waits: what is asked, what is offered, and what workers are told.

An offer is no lease: it keeps a run for one worker until `expires_at_unix_ms`, and the worker takes
it by asking for the lease with its `offer_id`. Paths of the workspace are not in it: only the
worker knows them.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from palyra_fleet.wire.models import (
    ArtifactTransportModel,
    DurationMs,
    Name,
    Principal,
    Ulid,
    UnixMs,
    WireModel,
)

_Word = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,200}$")]
"""What a worker says, for the event log: printable ASCII."""


class PlaceRequest(WireModel):
    """Asks to offer an approved run to a worker that waits. Without `grant_id` the first approval
    of the run that can be used counts."""

    run_id: Principal
    ttl_ms: DurationMs
    grant_id: Ulid | None = None
    required_capabilities: tuple[Name, ...] = Field(default=(), max_length=64)
    read_only: bool = False
    artifact_transport: ArtifactTransportModel = ArtifactTransportModel()


class OfferModel(WireModel):
    """A run that is kept for one worker; the lease must be asked for as it says, `ttl_ms` at most.
    Only the newest offers are remembered after they ended."""

    offer_id: Ulid
    run_id: Principal
    grant_id: Ulid
    worker_id: Ulid
    required_capabilities: tuple[Name, ...]
    ttl_ms: DurationMs
    read_only: bool
    artifact_transport: ArtifactTransportModel
    offered_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs


class OfferState(StrEnum):
    """Open, or how it ended."""

    OPEN = "open"
    TAKEN = "taken"
    DECLINED = "declined"
    LAPSED = "lapsed"
    ENDED = "ended"


class OfferView(OfferModel):
    """An offer as operators see it; `lease_id` where it was taken."""

    state: OfferState
    lease_id: Ulid | None = None


class DeclineRequest(WireModel):
    """The worker cannot take what was offered to it, and why."""

    session_epoch: int
    reason: _Word


class OrderKind(StrEnum):
    """What the fleet tells a worker to do."""

    STOP_LEASE = "stop_lease"
    QUARANTINED = "quarantined"
    EGRESS_SUSPENDED = "egress_suspended"
    EGRESS_RESUMED = "egress_resumed"
    OFFERED = "offered"
    REATTEST = "reattest"


class WorkerOrder(WireModel):
    """One order. `offer` where the kind is `offered`: an old one may have ended meanwhile, and
    taking it is refused then. `reattest` says to beat now: what is demanded is in the answer."""

    seq: int
    kind: OrderKind
    lease_id: Ulid | None = None
    reason: str
    offer: OfferModel | None = None
