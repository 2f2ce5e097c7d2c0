"""Offers: a run that is kept for one worker for a short time, until it takes the lease or not.

An offer leases nothing and spends nothing. `PlacementOrder` is what whoever places a run says of
its lease; the worker that takes it asks for the same, and for no longer time. Times: Unix ms.
"""

from dataclasses import dataclass

from palyra_fleet.leases.artifacts import NOTHING_TO_CARRY, ArtifactTransport
from palyra_fleet.leases.records import LeaseOrder
from palyra_fleet.wire.placement_models import OfferState


@dataclass(frozen=True, slots=True)
class PlacementOrder:
    """What the lease is to be. The workspace's paths are the worker's, which alone knows them."""

    run_id: str
    ttl_ms: int
    required_capabilities: tuple[str, ...] = ()
    read_only: bool = False
    artifact_transport: ArtifactTransport = NOTHING_TO_CARRY

    def difference(self, asked: LeaseOrder) -> str | None:
        """What the worker asks for otherwise, or None."""
        if set(asked.required_capabilities) != set(self.required_capabilities):
            return "required_capabilities must be the offer's"
        if asked.ttl_ms > self.ttl_ms:
            return "ttl_ms must be no more than the offer's"
        if asked.workspace_scope.read_only is not self.read_only:
            return "read_only must be the offer's"
        if asked.artifact_transport != self.artifact_transport:
            return "artifact_transport must be the offer's"
        return None


@dataclass(frozen=True, slots=True)
class Offer:
    """One run for one worker, from one approval. Open until the worker takes or declines it, its
    time is over (`expires_at_unix_ms`, exclusive), or worker or approval are no longer good."""

    offer_id: str
    worker_id: str
    grant_id: str
    order: PlacementOrder
    offered_at_unix_ms: int
    expires_at_unix_ms: int
    state: OfferState = OfferState.OPEN
    lease_id: str | None = None
