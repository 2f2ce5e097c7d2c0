"""FleetStore: what the fleet needs of a store, and how a store fails.

`submit` and `commit` write a decision, its events and the high-water marks in one transaction:
afterwards all of it is durable, or none of it is there. What is submitted while another is being
written may share a transaction with it. One contract suite runs on every implementation. Times:
Unix ms. Errors are by who must act: `StoreConflict` is our bug (a constraint held), `StoreFailed` a
dependency's, `StateUnusable` the operator's, with a text that says what to do.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from palyra_fleet.clock import ClockMark
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


class SchemaUnknown(StateUnusable):
    """Another release wrote this state, and this one cannot read it."""


class ChainBroken(Exception):
    """The event log does not verify; the text names the entry."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store holds. `records` has live leases and usable grants only."""

    epoch: int
    highest_fence: int
    high_water_unix_ms: int
    records: tuple[Record, ...]
    clock_mark: ClockMark | None = None
    last_event_seq: int = 0
    """The number of the event log's last entry."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is finished is kept. Quarantines, bans and evidence are kept for ever.

    A lease must outlast the slowest evidence about it: what comes after it is recorded only.
    """

    ended_ms: int = 30 * 24 * 3_600_000
    events: int = 1_000_000
    step: int = 5_000

    def __post_init__(self) -> None:
        if self.ended_ms < 24 * 3_600_000 or self.events < 1_000 or self.step < 1:
            raise ValueError("keep what has ended for a day, and a thousand events, at least")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one step of pruning forgot; `more` if another step has work."""

    leases: int = 0
    grants: int = 0
    events: int = 0
    more: bool = False


class FleetStore(Protocol):
    """Durable memory of one fleet."""

    async def open(self, now_unix_ms: int) -> Snapshot:
        """Check the state, bump the epoch, load. Raises StateUnusable."""

    async def close(self) -> None:
        """Finish what is being written and let go of the state. Safe to call twice."""

    def submit(self, decision: Decision, mark: ClockMark | None = None) -> "asyncio.Future[None]":
        """Make a decision durable after all that were submitted before it.

        The future fails with StoreConflict or StoreFailed. Then every later one fails as well, and
        nothing is taken, until `reload`: each rests on the one before.
        """

    async def commit(self, decision: Decision, mark: ClockMark | None = None) -> None:
        """Make one decision durable by itself. Raises StoreConflict or StoreFailed."""

    async def reload(self) -> Snapshot:
        """What is durable now; submitting is possible again. Raises StoreFailed."""

    async def prune(self, retention: Retention, now_unix_ms: int) -> Pruned:
        """Forget what finished long ago, in one bounded step. Raises StoreConflict, StoreFailed."""

    async def lease(self, lease_id: str) -> WorkerLease | None:
        """A lease, live or ended."""

    async def leases(
        self, limit: int, before_fence: int | None = None, *, ended: bool = False
    ) -> tuple[WorkerLease, ...]:
        """The leases with the highest fences, those first; with `before_fence` only lower ones, and
        with `ended` only those that no longer live."""

    async def grant(self, grant_id: str) -> WorkerApprovalGrant | None: ...

    async def grants(
        self, limit: int, before: str | None = None
    ) -> tuple[WorkerApprovalGrant, ...]:
        """The newest grants, newest first (ids are ULIDs); with `before` only older ids."""

    async def evidence(self, evidence_sha256: str) -> EvidenceRecord | None: ...

    async def violations(
        self, worker_id: str | None, limit: int, before: str | None = None
    ) -> tuple[EvidenceRecord, ...]:
        """The newest evidence first, of one worker or of all; with `before` only what is older
        than the evidence with that digest, nothing if there is none."""

    async def strikes(self, worker_id: str, after_unix_ms: int) -> int:
        """How many strikes of this worker happened after then, by the proxies' times."""

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        """Entries after `after_seq`, oldest first."""

    async def recent_events(
        self, worker_id: str | None, limit: int, before_seq: int | None = None
    ) -> tuple[EventView, ...]:
        """The newest entries (before one of them), newest first, about one worker or all."""

    async def verify_events(self) -> int:
        """Walk the whole chain; the number of entries. Raises ChainBroken."""
