"""What identity remembers: devices, their certificates, and what a command changes of them.

A certificate is pending (rotated to, not used yet), current, retiring (good until an overlap ends)
or revoked, and never leaves revoked. Times: Unix ms. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from palyra_fleet.identity.authority import AuthorityRecord
from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.identity.records import ClientKind


class CertificateState(StrEnum):
    PENDING = "pending"
    CURRENT = "current"
    RETIRING = "retiring"
    REVOKED = "revoked"


class IdentityEventReason(StrEnum):
    """Reasons in identity's event log; a released spelling never changes."""

    AUTHORITY_MADE = "identity.authority_made"
    AUTHORITY_RETIRED = "identity.authority_retired"
    DEVICE_PAIRED = "identity.device_paired"
    DEVICE_REVOKED = "identity.device_revoked"
    DEVICE_REMOVED = "identity.device_removed"
    CERTIFICATE_ISSUED = "identity.certificate_issued"
    CERTIFICATE_USED = "identity.certificate_first_used"
    CERTIFICATE_REVOKED = "identity.certificate_revoked"
    CERTIFICATE_FORGOTTEN = "identity.certificate_not_remembered"


@dataclass(frozen=True, slots=True)
class IdentityEvent:
    """One entry of identity's hash-chained log. Carries no secret."""

    reason: IdentityEventReason
    actor: str
    detail: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    worker_id: str | None = None
    lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device that paired. Revoked, its id may not pair again until it is removed."""

    device_id: str
    client_kind: ClientKind
    identity_fingerprint: str
    signing_public_key_hex: str
    paired_at_unix_ms: int
    request_id: str
    revoked_at_unix_ms: int | None = None
    revoked_reason: str | None = None

    @property
    def revoked(self) -> bool:
        return self.revoked_at_unix_ms is not None


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate we signed. `origin` is what it was issued for, once: an approval or rotation.

    `parent` is the certificate that asked for a rotation; None after a pairing.
    """

    fingerprint: str
    device_id: str
    origin: str
    parent: str | None
    authority_id: str
    certificate_pem: str
    issued_at_unix_ms: int
    not_before_unix_ms: int
    not_after_unix_ms: int
    overlap_ms: int
    state: CertificateState
    retires_at_unix_ms: int | None = None
    ended_reason: str | None = None

    @property
    def revoked(self) -> bool:
        return self.state is CertificateState.REVOKED

    @property
    def rotate_from_unix_ms(self) -> int:
        """Half of its life is over."""
        return (self.issued_at_unix_ms + self.not_after_unix_ms) // 2

    def revoke(self, why: str) -> "CertificateRecord":
        """The same, good no longer. The first reason stays."""
        return replace(self, state=CertificateState.REVOKED, ended_reason=self.ended_reason or why)

    def retire(self, now_unix_ms: int, overlap_ms: int, why: str) -> "CertificateRecord":
        """Good for the overlap, if it was in use at all; never longer than it already was."""
        if overlap_ms <= 0 or self.state is CertificateState.PENDING:
            return self.revoke(why)
        ends = now_unix_ms + overlap_ms
        if self.retires_at_unix_ms is not None:
            ends = min(ends, self.retires_at_unix_ms)
        return replace(
            self,
            state=CertificateState.RETIRING,
            retires_at_unix_ms=ends,
            ended_reason=self.ended_reason or why,
        )


@dataclass(frozen=True, slots=True)
class IdentityDecision:
    """The whole effect of one command."""

    at_unix_ms: int
    devices: tuple[DeviceRecord, ...] = ()
    removed_devices: tuple[str, ...] = ()
    certificates: tuple[CertificateRecord, ...] = ()
    forgotten_certificates: tuple[str, ...] = ()
    authorities: tuple[AuthorityRecord, ...] = ()
    events: tuple[IdentityEvent, ...] = ()
    notices: tuple[RevocationNotice, ...] = ()

    @property
    def durable(self) -> bool:
        """Does it have to be written before anyone is told?"""
        return bool(self.events or self.forgotten_certificates)


@dataclass(frozen=True, slots=True)
class IdentitySnapshot:
    """What the store held at start."""

    high_water_unix_ms: int
    devices: tuple[DeviceRecord, ...] = ()
    certificates: tuple[CertificateRecord, ...] = ()
    authorities: tuple[AuthorityRecord, ...] = ()
    sealed: Mapping[str, bytes] = field(default_factory=dict)
