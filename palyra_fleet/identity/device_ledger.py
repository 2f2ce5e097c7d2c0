"""IdentityLedger: which device a certificate belongs to, and whether it is still good.

Commands take `now` and answer an `IdentityDecision` or a `NodeRefusal`; nothing changes until
`apply`. `check` is two dictionary look-ups. Rotation has two phases: the new certificate is pending
until it is first used, and only then does the old one begin to retire, over an overlap that may be
zero; so a node that never received its new certificate keeps the old. Pairing again retires every
earlier certificate, at once if the signing key is another. Revoking a certificate revokes what was
rotated from it too: whoever held the one could have asked for the other. What is unknown is
refused, so forgetting a certificate can never let it pass. A rotation that an operator demands
gives every certificate of now a deadline; whatever becomes of the demand, they end by it.
Times: Unix ms; the caller's `now` never goes back. Source: specification 30, section 4. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from palyra_fleet.identity.authority import AuthorityRecord, IssuedLeaf, retired
from palyra_fleet.identity.device_records import (
    CertificateRecord,
    CertificateState,
    DeviceRecord,
    IdentityDecision,
    IdentityEvent,
    IdentityEventReason,
    IdentitySnapshot,
    RotationDemand,
    ended_event,
    issued_event,
)
from palyra_fleet.identity.messages import PairedDevice, RevocationNotice
from palyra_fleet.identity.records import VerifiedPairing
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, refuse
from palyra_fleet.identity.rotation_demand import missed_events, uses_a_replaced_key, without_demand

ROTATIONS_PER_HOUR: Final = 32
FORGET_AFTER_MS: Final = 7 * 24 * 60 * 60 * 1000
"""How long after its end a revoked certificate stays in the history."""
_HOUR_MS: Final = 60 * 60 * 1000

type Outcome = IdentityDecision | NodeRefusal


@dataclass(slots=True)
class IdentityLedger:
    """Devices, certificates and authorities in memory."""

    devices: dict[str, DeviceRecord] = field(default_factory=dict)
    certificates: dict[str, CertificateRecord] = field(default_factory=dict)
    authorities: dict[str, AuthorityRecord] = field(default_factory=dict)
    _of_device: dict[str, dict[str, None]] = field(default_factory=dict)
    _of_origin: dict[str, str] = field(default_factory=dict)
    _retiring: dict[str, int] = field(default_factory=dict)
    _signs_devices: str = ""

    def load(self, snapshot: IdentitySnapshot) -> None:
        self.apply(
            IdentityDecision(
                snapshot.high_water_unix_ms,
                devices=snapshot.devices,
                certificates=snapshot.certificates,
                authorities=snapshot.authorities,
            )
        )

    def apply(self, decision: IdentityDecision) -> None:
        """Take over a decision that is durable."""
        for device_id in decision.removed_devices:
            self.devices.pop(device_id, None)
        for device in decision.devices:
            self.devices[device.device_id] = device
        for certificate in decision.certificates:
            self._put(certificate)
        for fingerprint in decision.forgotten_certificates:
            self._forget(fingerprint)
        for authority in decision.authorities:
            self.authorities[authority.authority_id] = authority
        if decision.authorities:
            self._signs_devices = self.trusted_authorities()[-1].authority_id

    def check(self, fingerprint: str, now: int) -> PairedDevice | NodeRefusal:
        """The device that may speak with this certificate, or the row of the gate."""
        certificate = self.certificates.get(fingerprint)
        if certificate is None:
            return refuse(NodeReason.GATE_UNKNOWN)
        if certificate.revoked or self.has_lapsed(certificate, now):
            return refuse(NodeReason.GATE_REVOKED)
        if not certificate.not_before_unix_ms <= now < certificate.not_after_unix_ms:
            return refuse(NodeReason.GATE_NO_CERTIFICATE)
        device = self.devices.get(certificate.device_id)
        if device is None or device.revoked:
            return refuse(NodeReason.GATE_REVOKED)
        return PairedDevice(
            device_id=device.device_id,
            client_kind=device.client_kind,
            identity_fingerprint=device.identity_fingerprint,
            signing_public_key=bytes.fromhex(device.signing_public_key_hex),
            fingerprint=fingerprint,
            cert_expires_at_unix_ms=certificate.ends_at_unix_ms,
            rotate_from_unix_ms=self._rotate_from(certificate),
        )

    def _rotate_from(self, certificate: CertificateRecord) -> int:
        """Half of its life; at once if another authority signs devices by now."""
        if certificate.authority_id != self._signs_devices:
            return certificate.issued_at_unix_ms
        return certificate.rotate_from_unix_ms

    @staticmethod
    def has_lapsed(certificate: CertificateRecord, now: int) -> bool:
        """Whether its overlap is over, though nobody wrote so yet."""
        retires = certificate.retires_at_unix_ms
        return retires is not None and now >= retires

    def history(self, device_id: str) -> tuple[CertificateRecord, ...]:
        """Every certificate of a device that is not forgotten, oldest first."""
        return tuple(self.certificates[f] for f in self._of_device.get(device_id, ()))

    def of_request(self, request_id: str) -> CertificateRecord | None:
        """The one certificate issued for an approved request."""
        fingerprint = self._of_origin.get(pairing_origin(request_id))
        return None if fingerprint is None else self.certificates[fingerprint]

    def may_pair(self, device_id: str) -> NodeRefusal | None:
        device = self.devices.get(device_id)
        if device is not None and device.revoked:
            return refuse(NodeReason.DEVICE_REVOKED)
        return None

    def pair(
        self,
        now: int,
        verified: VerifiedPairing,
        request_id: str,
        leaf: IssuedLeaf,
        overlap_ms: int,
    ) -> Outcome:
        """The device is (again) paired, and this is its certificate. A key that an operator wanted
        replaced comes back this way no more than by a rotation, unless the device was removed."""
        refusal = self.may_pair(verified.device_id)
        if refusal is not None:
            return refusal
        before = self.devices.get(verified.device_id)
        if before is not None and uses_a_replaced_key(leaf, self.history(verified.device_id)):
            return refuse(NodeReason.KEY_REUSED)
        overlaps = before is None or (
            before.identity_fingerprint == verified.identity_fingerprint and before.rotation is None
        )
        ended = [
            old.retire(now, overlap_ms if overlaps else 0, "paired again")
            for old in self._alive(verified.device_id)
        ]
        device = DeviceRecord(
            device_id=verified.device_id,
            client_kind=verified.client_kind,
            identity_fingerprint=verified.identity_fingerprint,
            signing_public_key_hex=verified.signing_public_key_hex,
            paired_at_unix_ms=now,
            request_id=request_id,
        )
        origin = pairing_origin(request_id)
        fresh = CertificateRecord.pending(leaf, verified.device_id, origin, None, now, overlap_ms)
        fresh = replace(fresh, state=CertificateState.CURRENT)
        paired = IdentityEvent(
            IdentityEventReason.DEVICE_PAIRED,
            "fleet",
            {
                "device_id": device.device_id,
                "client_kind": device.client_kind.value,
                "identity_fingerprint": device.identity_fingerprint,
                "request_id": request_id,
            },
        )
        return self._decision(now, ended, (fresh,), (device,), (paired, issued_event(fresh)))

    def rotate(self, now: int, used_fingerprint: str, leaf: IssuedLeaf, overlap_ms: int) -> Outcome:
        """A next certificate, pending until it is used. An earlier pending one is void."""
        refusal = self.may_rotate(now, used_fingerprint)
        if refusal is not None:
            return refusal
        used = self.certificates[used_fingerprint]
        if uses_a_replaced_key(leaf, self.history(used.device_id)):
            return refuse(NodeReason.KEY_REUSED)
        replaced = [
            old.revoke("rotated again before it was used")
            for old in self.history(used.device_id)
            if old.state is CertificateState.PENDING
        ]
        origin = f"rotation:{leaf.fingerprint}"
        fresh = CertificateRecord.pending(
            leaf, used.device_id, origin, used_fingerprint, now, overlap_ms
        )
        return self._decision(now, replaced, (fresh,), (), (issued_event(fresh),))

    def demand_rotation(self, device_id: str, demand: RotationDemand) -> Outcome:
        """Every certificate that the device has now ends by the deadline, and before it once a
        newer one is used. Said again, it shortens a deadline and never moves it out."""
        now, device = demand.demanded_at_unix_ms, self.devices.get(device_id)
        if device is None:
            return refuse(NodeReason.DEVICE_UNKNOWN)
        if device.revoked:
            return refuse(NodeReason.DEVICE_REVOKED)
        good = [
            c
            for c in self._alive(device_id)
            if now < c.not_after_unix_ms and not self.has_lapsed(c, now)
        ]
        if not good:
            return refuse(NodeReason.NO_CERTIFICATE)
        ending = tuple(c.to_be_replaced_by(demand.deadline_unix_ms) for c in good)
        if ending == tuple(good):
            return IdentityDecision(now)
        last = max(c.ends_at_unix_ms for c in ending)
        asked = replace(device, rotation=replace(demand, deadline_unix_ms=last))
        event = IdentityEvent(
            IdentityEventReason.ROTATION_DEMANDED,
            demand.demanded_by,
            {"device_id": device_id, "deadline_unix_ms": last, "why": demand.reason},
        )
        return IdentityDecision(now, devices=(asked,), certificates=ending, events=(event,))

    def may_rotate(self, now: int, used_fingerprint: str) -> NodeRefusal | None:
        """Only the current certificate asks for the next, and not without measure."""
        found = self.check(used_fingerprint, now)
        if isinstance(found, NodeRefusal):
            return found
        if self.certificates[used_fingerprint].state is not CertificateState.CURRENT:
            return refuse(NodeReason.GATE_REVOKED)
        lately = [c for c in self.history(found.device_id) if c.issued_at_unix_ms > now - _HOUR_MS]
        if len(lately) > ROTATIONS_PER_HOUR:
            return refuse(NodeReason.ROTATIONS_FULL)
        return None

    def first_use(self, now: int, fingerprint: str) -> IdentityDecision | None:
        """A pending certificate was used: it is current, and the earlier ones retire."""
        used = self.certificates.get(fingerprint)
        if used is None or used.state is not CertificateState.PENDING:
            return None
        others = [c for c in self._alive(used.device_id) if c.fingerprint != fingerprint]
        demanded = self.devices[used.device_id].rotation is not None
        overlap_ms = 0 if demanded else used.overlap_ms
        ended = [old.retire(now, overlap_ms, "rotated") for old in others]
        current = replace(used, state=CertificateState.CURRENT)
        event = IdentityEvent(
            IdentityEventReason.CERTIFICATE_USED,
            f"device:{used.device_id}",
            {"device_id": used.device_id, "fingerprint": fingerprint},
        )
        met = self._demands_met((*ended, current))
        return self._decision(now, ended, (current,), met, (event,))

    def settle(self, now: int) -> IdentityDecision | None:
        """Overlaps that ended, and deadlines of demanded rotations that passed."""
        over = [
            self.certificates[fingerprint]
            for fingerprint, retires in self._retiring.items()
            if now >= retires
        ]
        if not over:
            return None
        lapsed = [
            c.revoke("not renewed by the deadline" if c.to_be_replaced else "overlap ended")
            for c in over
        ]
        return self._decision(now, lapsed, (), self._demands_met(lapsed), missed_events(over))

    def tidy(self, now: int) -> IdentityDecision | None:
        """Walks everything: authorities whose last leaf has gone, certificates of long ago."""
        useless = self._useless_authorities(now)
        old = tuple(
            c.fingerprint
            for c in self.certificates.values()
            if now - c.not_after_unix_ms >= FORGET_AFTER_MS
            and c.state in {CertificateState.REVOKED, CertificateState.PENDING}
        )
        if not useless and not old:
            return None
        events = tuple(
            IdentityEvent(
                IdentityEventReason.AUTHORITY_RETIRED, "fleet", {"authority_id": a.authority_id}
            )
            for a in useless
        )
        return IdentityDecision(now, forgotten_certificates=old, authorities=useless, events=events)

    def revoke_device(self, now: int, device_id: str, reason: str, actor: str) -> Outcome:
        """The device and every certificate of it, for good. Said twice, it changes nothing."""
        device = self.devices.get(device_id)
        if device is None:
            return refuse(NodeReason.DEVICE_UNKNOWN)
        if device.revoked:
            return IdentityDecision(now)
        revoked = replace(device, revoked_at_unix_ms=now, revoked_reason=reason, rotation=None)
        event = IdentityEvent(
            IdentityEventReason.DEVICE_REVOKED, actor, {"device_id": device_id, "why": reason}
        )
        ended = [c.revoke(f"device revoked: {reason}") for c in self._alive(device_id)]
        return self._decision(now, ended, (), (revoked,), (event,), gone=(device_id, reason))

    def remove_device(self, now: int, device_id: str, reason: str, actor: str) -> Outcome:
        """Forget the device: its certificates are revoked, and its id may pair again."""
        if device_id not in self.devices:
            return refuse(NodeReason.DEVICE_UNKNOWN)
        event = IdentityEvent(
            IdentityEventReason.DEVICE_REMOVED, actor, {"device_id": device_id, "why": reason}
        )
        ended = [c.revoke(f"device removed: {reason}") for c in self._alive(device_id)]
        decision = self._decision(now, ended, (), (), (event,), gone=(device_id, reason))
        return replace(decision, removed_devices=(device_id,))

    def revoke_fingerprint(self, now: int, fingerprint: str, reason: str, actor: str) -> Outcome:
        """One certificate, and those that were rotated from it."""
        first = self.certificates.get(fingerprint)
        if first is None:
            return refuse(NodeReason.CERTIFICATE_UNKNOWN)
        reached = {fingerprint}
        for certificate in self.history(first.device_id):
            if certificate.parent in reached:  # oldest first, so a parent comes before its child
                reached.add(certificate.fingerprint)
        ended = [
            self.certificates[f].revoke(f"revoked: {reason}")
            for f in reached
            if not self.certificates[f].revoked
        ]
        if not ended:
            return IdentityDecision(now)
        return self._decision(now, ended, (), self._demands_met(ended), (), actor=actor)

    def add_authority(
        self, now: int, authority: AuthorityRecord, actor: str, reason: str
    ) -> IdentityDecision:
        """Devices are signed by this one from now on; the one before stays trusted for a while."""
        detail = {"authority_id": authority.authority_id, "why": reason}
        event = IdentityEvent(IdentityEventReason.AUTHORITY_MADE, actor, detail)
        return IdentityDecision(now, authorities=(authority,), events=(event,))

    def may_rotate_authority(self) -> NodeRefusal | None:
        """One change at a time, so that a bundle holds two roots at most."""
        older = self.trusted_authorities()[:-1]
        if not older:
            return None
        return refuse(NodeReason.AUTHORITY_OVERLAP, authority_id=older[0].authority_id)

    def good_leaves(self, now: int, authority_id: str) -> tuple[CertificateRecord, ...]:
        """What an authority is still needed for."""
        return tuple(
            certificate
            for certificate in self.certificates.values()
            if certificate.authority_id == authority_id
            and not certificate.revoked
            and now < certificate.not_after_unix_ms
        )

    def trusted_authorities(self) -> tuple[AuthorityRecord, ...]:
        """Oldest first."""
        trusted = [a for a in self.authorities.values() if a.retired_at_unix_ms is None]
        return tuple(sorted(trusted, key=lambda a: a.created_at_unix_ms))

    def _useless_authorities(self, now: int) -> tuple[AuthorityRecord, ...]:
        older = self.trusted_authorities()[:-1]
        return tuple(retired(a, now) for a in older if not self.good_leaves(now, a.authority_id))

    def _alive(self, device_id: str) -> list[CertificateRecord]:
        return [c for c in self.history(device_id) if not c.revoked]

    def _demands_met(self, changed: Iterable[CertificateRecord]) -> tuple[DeviceRecord, ...]:
        """Devices that, after this change, have nothing left that a demand still waits for."""
        after = {c.fingerprint: c for c in changed}
        named = {c.device_id: self.devices.get(c.device_id) for c in after.values()}
        return without_demand(
            (device, [after.get(c.fingerprint, c) for c in self.history(device.device_id)])
            for device in named.values()
            if device is not None
        )

    def _decision(
        self,
        now: int,
        ended: Iterable[CertificateRecord],
        fresh: tuple[CertificateRecord, ...],
        devices: tuple[DeviceRecord, ...],
        events: tuple[IdentityEvent, ...],
        *,
        actor: str = "fleet",
        gone: tuple[str, str] | None = None,
    ) -> IdentityDecision:
        """Adds an event and a notice for what is revoked by it."""
        ended = tuple(ended)
        dead = [certificate for certificate in ended if certificate.revoked]
        by_device: dict[str, list[CertificateRecord]] = {}
        for certificate in dead:
            by_device.setdefault(certificate.device_id, []).append(certificate)
        notices = tuple(
            RevocationNotice(
                device_id,
                frozenset(c.fingerprint for c in its),
                gone[1] if gone else its[0].ended_reason or "",
                device_gone=gone is not None,
            )
            for device_id, its in by_device.items()
        )
        if gone is not None and not notices:
            notices = (RevocationNotice(gone[0], frozenset(), gone[1], device_gone=True),)
        return IdentityDecision(
            now,
            devices=devices,
            # what ends comes first: a device has one current certificate at any moment
            certificates=(*ended, *fresh),
            events=(*events, *(ended_event(c, actor) for c in dead)),
            notices=notices,
        )

    def _put(self, certificate: CertificateRecord) -> None:
        fingerprint = certificate.fingerprint
        self.certificates[fingerprint] = certificate
        self._of_device.setdefault(certificate.device_id, {})[fingerprint] = None
        self._of_origin[certificate.origin] = fingerprint
        if certificate.retires_at_unix_ms is not None and not certificate.revoked:
            self._retiring[fingerprint] = certificate.retires_at_unix_ms
        else:
            self._retiring.pop(fingerprint, None)

    def _forget(self, fingerprint: str) -> None:
        certificate = self.certificates.pop(fingerprint, None)
        if certificate is None:
            return
        self._of_origin.pop(certificate.origin, None)
        left = self._of_device[certificate.device_id]
        left.pop(fingerprint, None)
        if not left:
            del self._of_device[certificate.device_id]


def pairing_origin(request_id: str) -> str:
    return f"pairing:{request_id}"
