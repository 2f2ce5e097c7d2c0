"""What is remembered of a node and of each capability request. Names are those of the file.

Of a request's input and output only redacted summaries are kept. Times: Unix ms. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class CapabilityState(StrEnum):
    """Where a request stands. It is finished once, and never open again."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    AWAITING_LOCAL_MEDIATION = "awaiting_local_mediation"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"

    @property
    def finished(self) -> bool:
        return self in _FINISHED


_FINISHED: Final = frozenset(
    {
        CapabilityState.SUCCEEDED,
        CapabilityState.FAILED,
        CapabilityState.TIMED_OUT,
        CapabilityState.REJECTED,
    }
)


@dataclass(frozen=True, slots=True)
class DeviceCapabilityRecord:
    """What a node says it can do, and whether it can now."""

    name: str
    available: bool


@dataclass(frozen=True, slots=True)
class RegisteredNodeRecord:
    """A node that registered. `registered_at_unix_ms` stays when it registers again."""

    device_id: str
    platform: str
    capabilities: tuple[DeviceCapabilityRecord, ...]
    registered_at_unix_ms: int
    last_seen_at_unix_ms: int
    last_event_name: str | None = None
    last_event_at_unix_ms: int | None = None


@dataclass(frozen=True, slots=True)
class CapabilityRequestRecord:
    """One request to a node. `refused_results` counts results that came late or from another."""

    request_id: str
    device_id: str
    capability: str
    state: CapabilityState
    created_at_unix_ms: int
    updated_at_unix_ms: int
    max_payload_bytes: int
    dispatched_at_unix_ms: int | None = None
    completed_at_unix_ms: int | None = None
    input_summary: str | None = None
    output_summary: str | None = None
    error: str | None = None
    requested_by: str = ""
    decided_by: str | None = None
    refused_results: int = 0

    @property
    def waits_for_operator(self) -> bool:
        """Before its dispatch only an operator is waited for; after it, somebody at the node."""
        waits = self.state is CapabilityState.AWAITING_LOCAL_MEDIATION
        return waits and self.dispatched_at_unix_ms is None
