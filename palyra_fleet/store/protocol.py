"""FleetStore: what the fleet needs of a store, and how a store fails.

`commit` writes one decision, its events and the high-water marks in one transaction: afterwards all
of it is durable, or none of it is there. One contract suite runs on every implementation. Times:
Unix ms. Errors are by who must act: `StoreConflict` is our bug (a constraint held), `StoreFailed` a
dependency's, `StateUnusable` the operator's, with a text that says what to do.
"""

from dataclasses import dataclass
from typing import Protocol

from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.decision import Decision, EvidenceRecord, Record
from palyra_fleet.wire.models import EventView


class StoreConflict(Exception):
    """A constraint of the store refused the decision; nothing was written."""


class StoreFailed(Exception):
    """The store could not write or read. `ambiguous`: it is unknown whether it was written."""

    def __init__(self, text: str, ambiguous: bool) -> None:
        super().__init__(text)
        self.ambiguous = ambiguous


class StateUnusable(Exception):
    """State is missing, damaged, too open or in use; the text says what to do."""


class ChainBroken(Exception):
    """The event log does not verify; the text names the entry."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store held at start. `records` has live leases and usable grants only."""

    epoch: int
    highest_fence: int
    high_water_unix_ms: int
    records: tuple[Record, ...]


class FleetStore(Protocol):
    """Durable memory of one fleet."""

    async def open(self, now_unix_ms: int) -> Snapshot:
        """Check the state, bump the epoch, load. Raises StateUnusable."""

    async def close(self) -> None:
        """Finish what is being written and let go of the state. Safe to call twice."""

    async def commit(self, decision: Decision) -> None:
        """Make a decision durable. Raises StoreConflict or StoreFailed."""

    async def lease(self, lease_id: str) -> WorkerLease | None:
        """A lease, live or ended."""

    async def grant(self, grant_id: str) -> WorkerApprovalGrant | None: ...

    async def grants(self, limit: int) -> tuple[WorkerApprovalGrant, ...]:
        """The newest grants, newest first (ids are ULIDs)."""

    async def evidence(self, evidence_sha256: str) -> EvidenceRecord | None: ...

    async def violations(self, worker_id: str | None, limit: int) -> tuple[EvidenceRecord, ...]:
        """The newest evidence first, of one worker or of all."""

    async def strikes(self, worker_id: str, after_unix_ms: int) -> int:
        """How many strikes of this worker happened after then, by the proxies' times."""

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        """Entries after `after_seq`, oldest first."""

    async def verify_events(self) -> int:
        """Walk the whole chain; the number of entries. Raises ChainBroken."""
