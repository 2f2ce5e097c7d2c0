"""What identity remembers: devices, their certificates, and what a command changes of them.

A certificate is pending (rotated to, not used yet), current, retiring (good until an overlap ends)
or revoked, and never leaves revoked. One that an operator wants replaced keeps its state and ends
at the deadline. Times: Unix ms. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from palyra_fleet.identity.authority import AuthorityRecord, IssuedLeaf
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
    ROTATION_DEMANDED = "identity.rotation_demanded"
    ROTATION_MISSED = "identity.rotation_missed"
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
class RotationDemand:
    """An operator wants another certificate, with another key. What the device had when this was
    said ends at the deadline, and before it once the device uses a newer one."""

    demanded_at_unix_ms: int
    deadline_unix_ms: int
    demanded_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device that paired. Revoked, its id may not pair again until it is removed. `rotation` is
    there while it still has a certificate that an operator wants replaced."""

    device_id: str
    client_kind: ClientKind
    identity_fingerprint: str
    signing_public_key_hex: str
    paired_at_unix_ms: int
    request_id: str
    revoked_at_unix_ms: int | None = None
    revoked_reason: str | None = None
    rotation: RotationDemand | None = None

    @property
    def revoked(self) -> bool:
        return self.revoked_at_unix_ms is not None


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate we signed. `origin` is what it was issued for, once: an approval or rotation.

    `parent` is the certificate that asked for a rotation; None after a pairing.
    `replacement_demanded`: an operator wants another in its place, and its key never again.
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
    replacement_demanded: bool = False

    @classmethod
    def pending(
        cls,
        leaf: IssuedLeaf,
        device_id: str,
        origin: str,
        parent: str | None,
        now: int,
        overlap_ms: int,
    ) -> "CertificateRecord":
        """What was signed just now, and nobody has used yet."""
        return cls(
            fingerprint=leaf.fingerprint,
            device_id=device_id,
            origin=origin,
            parent=parent,
            authority_id=leaf.authority_id,
            certificate_pem=leaf.certificate_pem,
            issued_at_unix_ms=now,
            not_before_unix_ms=leaf.not_before_unix_ms,
            not_after_unix_ms=leaf.not_after_unix_ms,
            overlap_ms=overlap_ms,
            state=CertificateState.PENDING,
        )

    @property
    def revoked(self) -> bool:
        return self.state is CertificateState.REVOKED

    @property
    def to_be_replaced(self) -> bool:
        """Another one is demanded, and has not taken its place."""
        in_use = self.state in {CertificateState.PENDING, CertificateState.CURRENT}
        return in_use and self.replacement_demanded

    @property
    def rotate_from_unix_ms(self) -> int:
        """Half of its life is over; at once where another is demanded."""
        if self.to_be_replaced:
            return self.issued_at_unix_ms
        return (self.issued_at_unix_ms + self.not_after_unix_ms) // 2

    @property
    def ends_at_unix_ms(self) -> int:
        """When it is good no longer, as far as is known now."""
        if self.retires_at_unix_ms is None:
            return self.not_after_unix_ms
        return min(self.not_after_unix_ms, self.retires_at_unix_ms)

    def to_be_replaced_by(self, deadline_unix_ms: int) -> "CertificateRecord":
        """The same, good until then and never longer than it already was."""
        ends = deadline_unix_ms
        if self.retires_at_unix_ms is not None:
            ends = min(ends, self.retires_at_unix_ms)
        return replace(self, retires_at_unix_ms=ends, replacement_demanded=True)

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


def issued_event(certificate: CertificateRecord) -> IdentityEvent:
    return IdentityEvent(
        IdentityEventReason.CERTIFICATE_ISSUED,
        "fleet",
        {
            "device_id": certificate.device_id,
            "fingerprint": certificate.fingerprint,
            "origin": certificate.origin,
        },
    )


def ended_event(certificate: CertificateRecord, actor: str) -> IdentityEvent:
    return IdentityEvent(
        IdentityEventReason.CERTIFICATE_REVOKED,
        actor,
        {
            "device_id": certificate.device_id,
            "fingerprint": certificate.fingerprint,
            "why": certificate.ended_reason,
        },
    )
