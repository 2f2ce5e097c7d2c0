"""What pairing remembers, and the store it writes through.

Codes are kept as keyed hashes only; a request's material never holds a private key. The names and
values are those of `node-runtime.v1.json`. `PairingStore.commit` makes one change durable, whole
or not at all, before anyone is told. Times: Unix ms. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ClientKind(StrEnum):
    """What a device is. Workers pair as `node`, egress proxies as `proxy`."""

    CLI = "cli"
    DESKTOP = "desktop"
    NODE = "node"
    PROXY = "proxy"


class CodeMethod(StrEnum):
    """How a code reaches the device."""

    PIN = "pin"
    QR = "qr"


class RequestState(StrEnum):
    """A request moves from pending to one of the others once; approved to completed or expired."""

    PENDING = "pending_approval"
    APPROVED = "approved"
    REJECTED = "rejected"
    COMPLETED = "completed"
    EXPIRED = "expired"

    @property
    def pending(self) -> bool:
        return self is RequestState.PENDING

    @property
    def finished(self) -> bool:
        return self in {RequestState.REJECTED, RequestState.COMPLETED, RequestState.EXPIRED}


@dataclass(frozen=True, slots=True)
class DevicePairingCodeRecord:
    """A code an operator minted. `code_hash` is HMAC-SHA256 under a sealed pepper (64 hex)."""

    code_hash: str
    method: CodeMethod
    issued_by: str
    created_at_unix_ms: int
    expires_at_unix_ms: int


@dataclass(frozen=True, slots=True)
class VerifiedPairing:
    """What a verified transcript proved."""

    device_id: str
    client_kind: ClientKind
    identity_fingerprint: str
    signing_public_key_hex: str
    transcript_hash_hex: str


@dataclass(frozen=True, slots=True)
class PairingMaterial:
    """What the device was given. Never a private key."""

    identity_fingerprint: str
    mtls_client_certificate_pem: str
    gateway_ca_certificate_pem: str
    cert_expires_at_unix_ms: int


@dataclass(frozen=True, slots=True)
class DevicePairingRequestRecord:
    """A verified device waiting for, or after, an operator's decision.

    `certificate_signing_request_pem` is public; empty only where the fleet may make keys.
    """

    request_id: str
    session_id: str
    device_id: str
    client_kind: ClientKind
    method: CodeMethod
    code_issued_by: str
    requested_at_unix_ms: int
    expires_at_unix_ms: int
    approval_id: str
    state: RequestState
    verified_pairing: VerifiedPairing
    certificate_signing_request_pem: str = ""
    decision_reason: str | None = None
    decided_by: str | None = None
    decided_at_unix_ms: int | None = None
    material: PairingMaterial | None = None


@dataclass(frozen=True, slots=True)
class PairingChange:
    """One durable change: all of it or nothing. Keys are code hashes and request ids."""

    put_codes: tuple[DevicePairingCodeRecord, ...] = ()
    remove_codes: tuple[str, ...] = ()
    put_requests: tuple[DevicePairingRequestRecord, ...] = ()
    remove_requests: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(
            self.put_codes or self.remove_codes or self.put_requests or self.remove_requests
        )


@dataclass(frozen=True, slots=True)
class PairingSnapshot:
    """What the store held at start."""

    codes: tuple[DevicePairingCodeRecord, ...] = ()
    requests: tuple[DevicePairingRequestRecord, ...] = ()


class PairingStore(Protocol):
    """Durable memory of codes and requests (NodeRuntimeState implements it).

    One pairing service writes through it, one change at a time.
    """

    def pairing_snapshot(self) -> PairingSnapshot:
        """What is there now."""

    async def commit_pairing(self, change: PairingChange) -> None:
        """Durable when this returns. Raises StoreFailed, and then nothing may have changed."""
