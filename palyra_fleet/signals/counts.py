"""FleetCounts: what has happened since the start, counted as decisions apply and become durable.

A transition is a change of a worker's public state, with the reason of its event; `none` stands for
before it was known and after it was forgotten. Labels come from closed sets: states and reasons.
Pure but for its own numbers. Times: Unix ms.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.decision import Decision, EventReason, EvidenceRecord
from palyra_fleet.signals.export_counts import ExportCounts
from palyra_fleet.traces.spans import SpanCounts
from palyra_fleet.wire.durations import Durations
from palyra_fleet.wire.placement_models import OfferState

NOBODY: Final = "none"
MADE: Final = "made"

type StateOf = Callable[[str], str]
"""The public state of a worker by its id, NOBODY if it is not known."""


@dataclass(slots=True)
class FleetCounts:
    """Numbers only."""

    transitions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    offers: Counter[str] = field(default_factory=Counter)
    """By what became of them, and how many were made."""
    quarantine_latency: Durations = field(default_factory=Durations)
    reaper_lag_ms: int = 0
    exports: dict[str, ExportCounts] = field(default_factory=dict)
    """By receiver; empty where nothing is exported."""
    spans: SpanCounts | None = None
    issuer_problems: dict[str, str] = field(default_factory=dict)
    """What is wrong with the keys of issuers, by the issuer's name in the settings."""
    """Where traces are asked for."""

    def before(self, decision: Decision, state_of: StateOf) -> Mapping[str, str]:
        """The states of the workers that the decision speaks of, before it is applied."""
        spoken_of = {event.worker_id for event in decision.events if event.worker_id is not None}
        return {worker_id: state_of(worker_id) for worker_id in spoken_of}

    def applied(self, decision: Decision, before: Mapping[str, str], state_of: StateOf) -> None:
        """Count what the decision changed. Several events of one worker are one change, with the
        reason of the first."""
        seen: set[str] = set()
        for event in decision.events:
            worker_id = event.worker_id
            if worker_id is None or worker_id in seen:
                continue
            seen.add(worker_id)
            after = state_of(worker_id)
            if after != before[worker_id]:
                self.transitions[(before[worker_id], after, event.reason.value)] += 1
        self._note_reaping(decision)
        self.offers[MADE] += sum(one.reason is EventReason.OFFERED for one in decision.events)
        ended = (offer.state for offer in decision.offers if offer.state is not OfferState.OPEN)
        self.offers.update(state.value for state in ended)

    def durable(self, decision: Decision, now_unix_ms: int) -> None:
        """The decision is on disk: a quarantine holds from here on."""
        for record in decision.records:
            if isinstance(record, EvidenceRecord) and record.outcome == "quarantined":
                self.quarantine_latency.took(max(0, now_unix_ms - record.at_unix_ms))

    def _note_reaping(self, decision: Decision) -> None:
        reasons = {e.lease_id for e in decision.events if e.reason is EventReason.TTL_EXPIRED}
        lags = [
            decision.at_unix_ms - record.expires_at_unix_ms
            for record in decision.records
            if isinstance(record, WorkerLease) and record.lease_id in reasons
        ]
        if lags:
            self.reaper_lag_ms = max(0, *lags)
