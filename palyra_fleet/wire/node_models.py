"""What operators ask and hear about nodes: pairing, devices, nodes, capabilities.

A pairing code stands in one answer, the one that minted it. Inputs and outputs of capabilities
stand only in the call that asks, and in the view of a request that waits for a decision.
Times: Unix ms.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from palyra_fleet.wire.models import ShortText, WireModel
from palyra_fleet.wire.page_models import PageModel

CapabilityName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class PairingCodeRequest(WireModel):
    """Mint a code. Its life is clamped to 30 seconds .. 24 hours."""

    method: Literal["pin", "qr"] = "pin"
    ttl_ms: Annotated[int, Field(ge=1, le=7 * 24 * 3600 * 1000)] | None = None


class PairingCodeView(WireModel):
    """A new code, told once."""

    code: str
    code_hash: str
    method: str
    expires_at_unix_ms: int


class PairingRequestView(WireModel):
    """A device that waits, or was decided on. Compare fingerprint and hash with its screen."""

    approval_id: str
    device_id: str
    client_kind: str
    state: str
    identity_fingerprint: str
    transcript_hash: str
    method: str
    code_issued_by: str
    requested_at_unix_ms: int
    expires_at_unix_ms: int
    decided_by: str | None
    decision_reason: str | None


class DeviceState(StrEnum):
    """What a device may do. `rotating`: an operator demands another certificate, and the one in use
    ends at a deadline; `lapsed`: it has no certificate that is good, and must pair again."""

    PAIRED = "paired"
    ROTATING = "rotating"
    LAPSED = "lapsed"
    REVOKED = "revoked"


class RotateDeviceRequest(WireModel):
    """Demand that the device renews its certificate with a new key within this time: a minute at
    least, a day at most."""

    reason: ShortText
    within_ms: Annotated[int, Field(ge=60_000, le=24 * 3600 * 1000)] = 600_000


class RotationView(WireModel):
    """A demand that is not met yet, in the words of a demand on a worker."""

    due_at_unix_ms: int
    asked_by: str
    why: str
    asked_at_unix_ms: int


class DeviceView(WireModel):
    """A device that paired. `certificate_expires_at_unix_ms` is when the last of its certificates
    that are good now ends; None where there is none."""

    device_id: str
    client_kind: str
    state: DeviceState
    identity_fingerprint: str
    paired_at_unix_ms: int
    certificates: int
    certificate_expires_at_unix_ms: int | None
    rotation: RotationView | None
    revoked_at_unix_ms: int | None
    revoked_reason: str | None


class ApproveDevice(WireModel):
    """`replace_identity`: also where the device is paired with another key already."""

    reason: ShortText
    replace_identity: bool = False


class NodeCapabilityView(WireModel):
    name: str
    available: bool


class NodeView(WireModel):
    """A registered node. `connected`: a stream of it is open now."""

    device_id: str
    platform: str
    connected: bool
    capabilities: tuple[NodeCapabilityView, ...]
    registered_at_unix_ms: int
    last_seen_at_unix_ms: int
    last_event_name: str | None
    last_event_at_unix_ms: int | None


class InvokeRequest(WireModel):
    """Ask a node to do something and wait for it. Whoever asks has thereby agreed to it."""

    capability: CapabilityName
    input: JsonValue = None
    max_payload_bytes: Annotated[int, Field(ge=0, le=1024 * 1024)] = 0


class InvokeAnswer(WireModel):
    success: bool
    output: JsonValue
    error: str


class CapabilityRequestView(WireModel):
    """`input` is there while the request waits for an operator's decision."""

    request_id: str
    device_id: str
    capability: str
    state: str
    requested_by: str
    decided_by: str | None
    created_at_unix_ms: int
    updated_at_unix_ms: int
    input_summary: str | None
    output_summary: str | None
    error: str | None
    refused_results: int
    input: JsonValue = None


class AuthorityView(WireModel):
    """A trusted authority. `good_certificates`: how many devices still need it;
    `last_ends_at_unix_ms`: when the last of their certificates ends by itself."""

    authority_id: str
    certificate_sha256: str
    created_at_unix_ms: int
    expires_at_unix_ms: int
    signs_devices: bool
    signs_servers: bool
    good_certificates: int
    last_ends_at_unix_ms: int | None


class AuthorityList(WireModel):
    """Oldest first."""

    items: tuple[AuthorityView, ...]


class DeviceList(PageModel[DeviceView]):
    """The newest id first."""


class PairingRequestList(PageModel[PairingRequestView]):
    """The newest id first."""


class NodeList(PageModel[NodeView]):
    """The newest id first."""


class CapabilityRequestList(PageModel[CapabilityRequestView]):
    """The newest id first."""
