"""Why a node is refused: one table of reasons, with gRPC status and published text.

Clients of other makers compare some of these texts, so a released one never changes. Templates
take named parts that are public (a field's name), never what the caller sent. The four rows of the
gate every node call passes stand first. Admin routes use `http_status`. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class NodeStatus(StrEnum):
    """The names of gRPC's status codes that we answer with (`grpc.StatusCode[name]`)."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"

    @property
    def http_status(self) -> int:
        return _HTTP[self]


_HTTP: Final[dict[NodeStatus, int]] = {
    NodeStatus.INVALID_ARGUMENT: 400,
    NodeStatus.UNAUTHENTICATED: 401,
    NodeStatus.PERMISSION_DENIED: 403,
    NodeStatus.NOT_FOUND: 404,
    NodeStatus.FAILED_PRECONDITION: 409,
    NodeStatus.RESOURCE_EXHAUSTED: 429,
    NodeStatus.UNAVAILABLE: 503,
}


class NodeReason(StrEnum):
    """Reason codes of pairing and identity. Each has exactly one row in `_TABLE`."""

    GATE_NO_CERTIFICATE = "node.certificate_missing"
    GATE_REVOKED = "node.certificate_revoked"
    GATE_UNKNOWN = "node.certificate_unknown"
    GATE_OTHER_DEVICE = "node.device_mismatch"
    CLIENT_KIND = "pairing.client_kind_invalid"
    METHOD_MISSING = "pairing.method_missing"
    PIN_MALFORMED = "pairing.pin_malformed"
    TOKEN_MALFORMED = "pairing.token_malformed"  # noqa: S105 (a reason, not a password)
    SESSION_EMPTY = "pairing.session_id_empty"
    NOT_A_ULID = "pairing.id_invalid"
    LENGTH = "pairing.length_invalid"
    CSR_MISSING = "pairing.csr_missing"
    CSR_INVALID = "pairing.csr_invalid"
    REPLAY_MALFORMED = "node.replay_malformed"
    REPLAY_STALE = "node.replay_stale"
    REPLAY_SEEN = "node.replay_seen"
    REPLAY_FULL = "node.replay_window_full"
    CODE_MISSING = "pairing.code_missing"
    SESSIONS_FULL = "pairing.sessions_full"
    REQUESTS_FULL = "pairing.requests_full"
    CODES_FULL = "pairing.codes_full"
    CODE_NOT_RESERVED = "pairing.code_not_reserved"
    VERIFICATION = "pairing.verification_failed"
    REQUEST_UNKNOWN = "pairing.request_unknown"
    REQUEST_OTHER_DEVICE = "pairing.request_of_other_device"
    STATUS_SIGNATURE = "pairing.status_signature_invalid"
    ALREADY_DECIDED = "pairing.already_decided"
    REPLACES_IDENTITY = "pairing.replaces_identity"
    DEVICE_UNKNOWN = "identity.device_unknown"
    DEVICE_REVOKED = "identity.device_revoked"
    CERTIFICATE_UNKNOWN = "identity.certificate_unknown"
    ROTATIONS_FULL = "identity.rotations_full"
    KEY_REUSED = "identity.key_reused"
    NO_CERTIFICATE = "identity.no_certificate"
    AUTHORITY_OVERLAP = "identity.authority_overlap"
    STORE_UNAVAILABLE = "identity.store_unavailable"

    @property
    def status(self) -> NodeStatus:
        return _TABLE[self][0]

    @property
    def template(self) -> str:
        return _TABLE[self][1]


_INVALID: Final = NodeStatus.INVALID_ARGUMENT
_DENIED: Final = NodeStatus.PERMISSION_DENIED
_FAILED: Final = NodeStatus.FAILED_PRECONDITION
_MISSING: Final = NodeStatus.NOT_FOUND
_FULL: Final = NodeStatus.RESOURCE_EXHAUSTED

_TABLE: Final[dict[NodeReason, tuple[NodeStatus, str]]] = {
    NodeReason.GATE_NO_CERTIFICATE: (
        NodeStatus.UNAUTHENTICATED,
        "node RPC request is missing a client certificate",
    ),
    NodeReason.GATE_REVOKED: (_DENIED, "node RPC client certificate fingerprint is revoked"),
    NodeReason.GATE_UNKNOWN: (
        _DENIED,
        "node RPC client certificate does not map to a paired device",
    ),
    NodeReason.GATE_OTHER_DEVICE: (
        _DENIED,
        "node RPC request device_id does not match the authenticated client certificate",
    ),
    NodeReason.CLIENT_KIND: (_INVALID, "client_kind must be one of cli, desktop, node, proxy"),
    NodeReason.METHOD_MISSING: (_INVALID, "method must be a pin_code or a qr_token"),
    NodeReason.PIN_MALFORMED: (_INVALID, "pin_code must be exactly 6 ASCII digits"),
    NodeReason.TOKEN_MALFORMED: (_INVALID, "qr_token must be 16 to 128 bytes"),
    NodeReason.SESSION_EMPTY: (_INVALID, "session_id must not be empty"),
    NodeReason.NOT_A_ULID: (_INVALID, "{field} must be a canonical ULID"),
    NodeReason.LENGTH: (_INVALID, "{field} must be {expected} bytes"),
    NodeReason.CSR_MISSING: (_INVALID, "certificate_signing_request_pem must not be empty"),
    NodeReason.CSR_INVALID: (
        _INVALID,
        "certificate_signing_request_pem must be one PKCS#10 request, signed by its own P-256 key",
    ),
    NodeReason.REPLAY_MALFORMED: (_INVALID, "replay.nonce must be 1 to 128 characters"),
    NodeReason.REPLAY_STALE: (_FAILED, "replay.timestamp_unix_ms is outside the accepted window"),
    NodeReason.REPLAY_SEEN: (_FAILED, "replay.nonce was used before"),
    NodeReason.REPLAY_FULL: (_FULL, "too many requests inside the replay window"),
    NodeReason.CODE_MISSING: (_FAILED, "pairing code is missing or expired"),
    NodeReason.SESSIONS_FULL: (_FULL, "too many pairing sessions are open"),
    NodeReason.REQUESTS_FULL: (_FULL, "too many pairing requests are waiting for a decision"),
    NodeReason.CODES_FULL: (_FULL, "too many pairing codes are active; withdraw some first"),
    NodeReason.CODE_NOT_RESERVED: (_FAILED, "pairing session does not have a reserved code"),
    NodeReason.VERIFICATION: (_FAILED, "pairing verification failed: {why}"),
    NodeReason.REQUEST_UNKNOWN: (_MISSING, "pairing request was not found"),
    NodeReason.REQUEST_OTHER_DEVICE: (
        _DENIED,
        "pairing request does not belong to the requested device_id",
    ),
    NodeReason.STATUS_SIGNATURE: (_DENIED, "device_signature is missing or not valid"),
    NodeReason.ALREADY_DECIDED: (_FAILED, "pairing request is already {state}"),
    NodeReason.REPLACES_IDENTITY: (
        _FAILED,
        "device is already paired with another identity; approve with replacement, or reject",
    ),
    NodeReason.DEVICE_UNKNOWN: (_MISSING, "device is not paired"),
    NodeReason.DEVICE_REVOKED: (_DENIED, "device is revoked"),
    NodeReason.CERTIFICATE_UNKNOWN: (_MISSING, "certificate was not found"),
    NodeReason.ROTATIONS_FULL: (_FULL, "too many certificates were issued to this device"),
    NodeReason.KEY_REUSED: (
        _INVALID,
        "an operator demanded another key than that of certificate_signing_request_pem",
    ),
    NodeReason.NO_CERTIFICATE: (_FAILED, "device has no certificate that is good; pair it again"),
    NodeReason.AUTHORITY_OVERLAP: (
        _FAILED,
        "the authority is changing already: authority {authority_id} is trusted until its last"
        " certificate has ended; wait for that, or revoke the devices that hold one",
    ),
    NodeReason.STORE_UNAVAILABLE: (
        NodeStatus.UNAVAILABLE,
        "the change cannot be made durable; try again later",
    ),
}


@dataclass(frozen=True, slots=True)
class NodeRefusal:
    """A refusal as a value."""

    reason: NodeReason
    text: str

    @property
    def status(self) -> NodeStatus:
        return self.reason.status


class NodeRefused(Exception):
    """A refusal on its way to the caller. `str()` is the text."""

    def __init__(self, refusal: NodeRefusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


def refuse(reason: NodeReason, **parts: str) -> NodeRefusal:
    """The refusal with its published text."""
    return NodeRefusal(reason, reason.template.format(**parts))
