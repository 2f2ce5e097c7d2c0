"""Why a call about nodes and their capabilities is refused: one table, with status and text.

Texts that published clients may compare are those of the published service and never change. No
text repeats what the caller sent. The gate's and pairing's reasons: `identity.refusals`. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class CapabilityReason(StrEnum):
    """Reason codes. Each has exactly one row in `_TABLE`."""

    NOT_REGISTERED = "capability.node_not_registered"
    TIMED_OUT = "capability.timed_out"
    NAME = "capability.name_invalid"
    NAMED_TWICE = "capability.named_twice"
    TOO_MANY_CAPABILITIES = "node.too_many_capabilities"
    PLATFORM = "node.platform_invalid"
    LIMIT = "capability.limit_too_high"
    INPUT_TOO_LARGE = "capability.input_too_large"
    INPUT_NOT_JSON = "capability.input_not_json"
    NOT_AVAILABLE = "capability.not_available"
    TOO_MANY = "capability.too_many_open"
    NOT_WAITING = "capability.not_waiting"
    NOT_THEIRS = "capability.not_open_for_node"
    EVENT_NAME = "node.event_name_invalid"
    PAYLOAD_NOT_JSON = "node.payload_not_json"
    NO_REQUEST_ID = "node.payload_without_request_id"
    STREAMS_FULL = "node.too_many_streams"
    CALLS_FULL = "node.too_many_calls"
    CLOSING = "node.service_closing"
    NODE_UNKNOWN = "node.unknown"

    @property
    def status(self) -> str:
        """The name of the gRPC status code."""
        return _TABLE[self][0]

    @property
    def http_status(self) -> int:
        return _TABLE[self][1]

    @property
    def text(self) -> str:
        return _TABLE[self][2]


_INVALID: Final = ("INVALID_ARGUMENT", 400)
_FAILED: Final = ("FAILED_PRECONDITION", 409)
_FULL: Final = ("RESOURCE_EXHAUSTED", 429)

_TABLE: Final[dict[CapabilityReason, tuple[str, int, str]]] = {
    CapabilityReason.NOT_REGISTERED: (
        *_FAILED,
        "node must register before executing capabilities",
    ),
    CapabilityReason.TIMED_OUT: (
        "DEADLINE_EXCEEDED",
        504,
        "timed out waiting for node capability result",
    ),
    CapabilityReason.NAME: (
        *_INVALID,
        "a capability's name is 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter"
        " or digit",
    ),
    CapabilityReason.NAMED_TWICE: (*_INVALID, "a capability is named twice"),
    CapabilityReason.TOO_MANY_CAPABILITIES: (*_INVALID, "too many capabilities"),
    CapabilityReason.PLATFORM: (*_INVALID, "platform must be 1 to 64 printable characters"),
    CapabilityReason.LIMIT: (*_INVALID, "max_payload_bytes must be at most 1048576"),
    CapabilityReason.INPUT_TOO_LARGE: (*_INVALID, "input_json exceeds max_payload_bytes"),
    CapabilityReason.INPUT_NOT_JSON: (*_INVALID, "input_json must be valid JSON"),
    CapabilityReason.NOT_AVAILABLE: (*_FAILED, "capability is not available on this node"),
    CapabilityReason.TOO_MANY: (*_FULL, "too many capability requests are open"),
    CapabilityReason.NOT_WAITING: (*_FAILED, "capability request does not wait for a decision"),
    CapabilityReason.NOT_THEIRS: (
        *_FAILED,
        "capability request is not open for this node",
    ),
    CapabilityReason.EVENT_NAME: (*_INVALID, "event_name must be 1 to 128 printable characters"),
    CapabilityReason.PAYLOAD_NOT_JSON: (*_INVALID, "payload_json must be a valid JSON object"),
    CapabilityReason.NO_REQUEST_ID: (*_INVALID, "payload_json must name a request_id"),
    CapabilityReason.STREAMS_FULL: (*_FULL, "too many event streams are open"),
    CapabilityReason.CALLS_FULL: (*_FULL, "too many calls are under way"),
    CapabilityReason.CLOSING: ("UNAVAILABLE", 503, "the fleet is shutting down"),
    CapabilityReason.NODE_UNKNOWN: ("NOT_FOUND", 404, "node is not registered"),
}


@dataclass(frozen=True, slots=True)
class CapabilityRefusal:
    """A refusal as a value."""

    reason: CapabilityReason

    @property
    def text(self) -> str:
        return self.reason.text


class CapabilityRefused(Exception):
    """A refusal on its way to the caller. `str()` is the text."""

    def __init__(self, refusal: CapabilityRefusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal
