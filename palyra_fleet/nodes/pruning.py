"""Which capability requests are forgotten, and what becomes of open ones at a start. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from palyra_fleet.nodes.records import CapabilityRequestRecord, CapabilityState

RESTARTED: Final = "the fleet was restarted before the node answered"


@dataclass(frozen=True, slots=True)
class KeepRequests:
    """How long, and how many, finished requests are kept. Open ones always are."""

    age_ms: int = 24 * 60 * 60 * 1000
    number: int = 5_000


def to_prune(
    requests: Iterable[CapabilityRequestRecord], now_unix_ms: int, keep: KeepRequests
) -> tuple[str, ...]:
    """The finished requests to forget: the old, and the oldest of too many."""
    finished = sorted(
        (request for request in requests if request.state.finished),
        key=lambda request: (request.updated_at_unix_ms, request.request_id),
    )
    too_many = max(len(finished) - keep.number, 0)
    return tuple(
        request.request_id
        for place, request in enumerate(finished)
        if place < too_many or now_unix_ms - request.updated_at_unix_ms >= keep.age_ms
    )


def settled(
    requests: Iterable[CapabilityRequestRecord], now_unix_ms: int
) -> list[CapabilityRequestRecord]:
    """Requests that were open when the process ended, as failed: nobody waits for them now."""
    return [
        replace(
            request,
            state=CapabilityState.FAILED,
            updated_at_unix_ms=now_unix_ms,
            completed_at_unix_ms=now_unix_ms,
            error=RESTARTED,
        )
        for request in requests
        if not request.state.finished
    ]
