"""Why a worker's run is stopped before it ends by itself, and which refusals mean that it must be.

`stop_for_problem` is the pure rule: given a refusal of the fleet it says whether the session is
over, and why, or that the same may be tried again (None).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from palyra_fleet.client.errors import FleetProblem
from palyra_fleet.ledger.facts import WorkerLifecycleState
from palyra_fleet.refusals import FleetReason


class StopKind(StrEnum):
    """Who or what ends the run."""

    QUARANTINED = "quarantined"
    LEASE_STOPPED = "lease_stopped"
    FENCED = "fenced"
    PROGRAM_CHANGED = "program_changed"
    SESSION_OVER = "session_over"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Stop:
    """The first reason to stop; later ones change nothing. `detail` is for people."""

    kind: StopKind
    detail: str


_QUARANTINE: Final = frozenset({FleetReason.WORKER_QUARANTINED, FleetReason.WORKER_BANNED})
_LEASE_OVER: Final = frozenset(
    {FleetReason.LEASE_UNKNOWN, FleetReason.STALE_FENCE, FleetReason.LEASE_ENDED}
)
_SESSION_OVER: Final = frozenset({FleetReason.SESSION_STALE, FleetReason.WORKER_UNKNOWN})


def state_is_quarantined(state: str) -> bool:
    """What an answer's `state` means for a running worker."""
    return state == WorkerLifecycleState.QUARANTINED.value


def stop_for_problem(problem: FleetProblem) -> Stop | None:
    """What this refusal means for a running worker; None if it may simply be tried again."""
    if problem.reason in _QUARANTINE:
        return Stop(StopKind.QUARANTINED, problem.detail)
    if problem.reason in _LEASE_OVER:
        return Stop(StopKind.LEASE_STOPPED, problem.detail)
    if problem.reason in _SESSION_OVER or problem.status == 401:
        return Stop(StopKind.SESSION_OVER, problem.detail)
    return None
