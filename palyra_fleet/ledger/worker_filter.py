"""Which workers a list shows: what all of them have in common. Pure."""

from dataclasses import dataclass
from typing import Final, get_args

from palyra_fleet.ledger.facts import (
    Eligibility,
    WorkerLifecycleState,
    WorkerRecord,
    lifecycle_state,
)
from palyra_fleet.wire.backing import EvidenceKind

STATES: Final = tuple(state.value for state in WorkerLifecycleState)
ELIGIBILITIES: Final = tuple(eligibility.value for eligibility in Eligibility)
ATTESTORS: Final[tuple[str, ...]] = get_args(EvidenceKind)


@dataclass(frozen=True, slots=True)
class WorkerFilter:
    """Whatever is said must be so; `capability` is one that the worker proved, `waits` those that
    wait for a run, in whatever state."""

    state: str | None = None
    eligibility: str | None = None
    attestor: str | None = None
    capability: str | None = None
    waits: bool = False

    def fits(self, worker: WorkerRecord, now_unix_ms: int, *, waits: bool) -> bool:
        """`waits`: whether this worker does."""
        return (
            self.eligibility in {None, worker.eligibility}
            and self.attestor in {None, worker.proof.evidence_kind}
            and (self.capability is None or self.capability in worker.proof.capabilities)
            and (waits or not self.waits)
            and (self.state is None or self.state == lifecycle_state(worker, now_unix_ms))
        )
