"""Which workers a list shows: what all of them have in common. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from palyra_fleet.ledger.facts import (
    Eligibility,
    WorkerLifecycleState,
    WorkerRecord,
    lifecycle_state,
)
from palyra_fleet.wire.backing import EvidenceKind
from palyra_fleet.wire.labels import WantedLabel

STATES: Final = tuple(state.value for state in WorkerLifecycleState)
ELIGIBILITIES: Final = tuple(eligibility.value for eligibility in Eligibility)
ATTESTORS: Final[tuple[str, ...]] = get_args(EvidenceKind)


@dataclass(frozen=True, slots=True)
class WorkerFilter:
    """Whatever is said must be so; `capability` is one that the worker proved, of `labels` it has
    every one, `waits` (False) those that wait (do not wait) for a run, in whatever state,
    `demanded` whether a demand for newer evidence is open."""

    state: str | None = None
    eligibility: str | None = None
    attestor: str | None = None
    capability: str | None = None
    waits: bool | None = None
    labels: tuple[WantedLabel, ...] = ()
    demanded: bool | None = None

    def fits(self, worker: WorkerRecord, now_unix_ms: int, *, waits: bool) -> bool:
        """`waits`: whether this worker does."""
        return (
            self.eligibility in {None, worker.eligibility}
            and self.attestor in {None, worker.proof.evidence_kind}
            and (self.capability is None or self.capability in worker.proof.capabilities)
            and self.waits in {None, waits}
            and self.demanded in {None, worker.demand is not None}
            and has_labels(dict(worker.labels), self.labels)
            and (self.state is None or self.state == lifecycle_state(worker, now_unix_ms))
        )


def has_labels(labels: Mapping[str, str], wanted: Iterable[WantedLabel]) -> bool:
    """Every one that is wanted, with the value that is wanted if one is said."""
    return all(key in labels and value in {None, labels[key]} for key, value in wanted)
