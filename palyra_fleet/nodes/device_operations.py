"""What operators do with devices, their certificates and the authority, as views for the admin API.

Every change carries who asked. Refusals are raised as `NodeRefused`. Views name certificates and
never hold a key. Times: Unix ms.
"""

import heapq
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from cryptography import x509

from palyra_fleet.identity.certificate_profiles import unix_ms
from palyra_fleet.identity.device_records import (
    CertificateRecord,
    DeviceRecord,
    RotationDemand,
)
from palyra_fleet.identity.known_certificates import CertificateFilter, KnownCertificate
from palyra_fleet.identity.messages import PairedDevice
from palyra_fleet.identity.records import ClientKind
from palyra_fleet.identity.refusals import NodeReason, NodeRefused, refuse
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.nodes.streams import NoticeKind
from palyra_fleet.wire import certificate_models as certificate_wire
from palyra_fleet.wire import node_models as wire

_DEMANDED: Final = "an operator demands a new certificate"


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Whatever is said must be so."""

    state: wire.DeviceState | None = None
    kind: ClientKind | None = None


EVERY_DEVICE: Final = DeviceFilter()


class DeviceOperations:
    """Over one `NodeService`."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    def devices(
        self, limit: int, after: str | None = None, wanted: DeviceFilter = EVERY_DEVICE
    ) -> tuple[wire.DeviceView, ...]:
        """Those that paired, revoked ones too, the newest id first; `after` is the id to go on
        from."""
        found = {
            one.device_id: one
            for one in self._service.identity.devices(wanted.kind)
            if wanted.state in {None, self._state(one)}
        }
        return tuple(map(self._device_view, newest(found, limit, after)))

    def device(self, device_id: str) -> wire.DeviceView:
        found = self._service.identity.device(device_id)
        if found is None:
            raise NodeRefused(refuse(NodeReason.DEVICE_UNKNOWN))
        return self._device_view(found)

    async def rotate_device(
        self, actor: str, device_id: str, asked: wire.RotateDeviceRequest
    ) -> wire.DeviceView:
        """The device hears of it at once if it has a stream, else with its next call."""
        demanded = await self._service.identity.demand_rotation(
            device_id, asked.within_ms, asked.reason, actor
        )
        for certificate in self._service.identity.history(device_id):
            if certificate.to_be_replaced:
                self._service.notify(
                    device_id,
                    NoticeKind.ROTATE_CERTIFICATE,
                    certificate.fingerprint,
                    _DEMANDED,
                )
        return self._device_view(demanded)

    async def revoke_device(self, actor: str, device_id: str, reason: str) -> None:
        """Its certificates end now, and its id may not pair again."""
        await self._service.identity.revoke_device(device_id, reason, actor)
        await self._service.state.remove_node(device_id)

    async def remove_device(self, actor: str, device_id: str, reason: str) -> None:
        """Its certificates end now, and its id may pair again."""
        await self._service.identity.remove_device(device_id, reason, actor)
        await self._service.state.remove_node(device_id)

    def certificates(
        self, wanted: CertificateFilter, limit: int, after: str | None = None
    ) -> tuple[certificate_wire.CertificateView, ...]:
        """What the fleet issued and remembers, the newest first; `after` is the place of the last
        one seen."""
        now = self._service.clock()
        found = (
            one
            for one in self._service.identity.certificates()
            if (after is None or one.place < after) and wanted.fits(one, now)
        )
        return tuple(
            map(self._certificate_view, heapq.nlargest(limit, found, lambda one: one.place))
        )

    def authorities(self) -> tuple[wire.AuthorityView, ...]:
        """Those trusted now, the oldest first."""
        return tuple(
            wire.AuthorityView(**asdict(standing))
            for standing in self._service.identity.authorities()
        )

    async def rotate_authority(self, actor: str, reason: str) -> tuple[wire.AuthorityView, ...]:
        """Sign devices with a new one; the old one is trusted until its last leaf has gone."""
        await self._service.identity.rotate_authority(reason, actor)
        return self.authorities()

    def _good(self, device: DeviceRecord) -> list[CertificateRecord]:
        identity, now = self._service.identity, self._service.clock()
        return [
            one
            for one in identity.history(device.device_id)
            if isinstance(identity.check(one.fingerprint, now), PairedDevice)
        ]

    def _state(self, device: DeviceRecord) -> wire.DeviceState:
        if device.revoked:
            return wire.DeviceState.REVOKED
        good = self._good(device)
        if not good:
            return wire.DeviceState.LAPSED
        waits = any(one.to_be_replaced for one in good)
        return wire.DeviceState.ROTATING if waits else wire.DeviceState.PAIRED

    def _device_view(self, device: DeviceRecord) -> wire.DeviceView:
        asked = device.rotation
        return wire.DeviceView(
            device_id=device.device_id,
            client_kind=device.client_kind.value,
            state=self._state(device),
            identity_fingerprint=device.identity_fingerprint,
            paired_at_unix_ms=device.paired_at_unix_ms,
            certificates=len(self._service.identity.history(device.device_id)),
            certificate_expires_at_unix_ms=max(
                (one.ends_at_unix_ms for one in self._good(device)), default=None
            ),
            rotation=None if asked is None else _demanded(asked),
            revoked_at_unix_ms=device.revoked_at_unix_ms,
            revoked_reason=device.revoked_reason,
        )

    def _certificate_view(self, known: KnownCertificate) -> certificate_wire.CertificateView:
        certificate = known.certificate
        device = None
        if known.device_id is not None:
            device = self._service.identity.device(known.device_id)
        return certificate_wire.CertificateView(
            fingerprint_sha256=known.fingerprint,
            serial=f"{certificate.serial_number:040x}",
            kind=known.kind,
            state=known.standing,
            subject=certificate.subject.rfc4514_string(),
            spiffe_id=_spiffe_id(certificate),
            device_id=known.device_id,
            client_kind=None if device is None else device.client_kind.value,
            authority_id=known.authority_id,
            issued_at_unix_ms=known.issued_at_unix_ms,
            not_before_unix_ms=unix_ms(certificate.not_valid_before_utc),
            not_after_unix_ms=unix_ms(certificate.not_valid_after_utc),
            ends_at_unix_ms=known.ends_at_unix_ms,
            ended_reason=known.ended_reason,
        )


def _demanded(asked: RotationDemand) -> wire.RotationView:
    return wire.RotationView(
        due_at_unix_ms=asked.deadline_unix_ms,
        asked_by=asked.demanded_by,
        why=asked.reason,
        asked_at_unix_ms=asked.demanded_at_unix_ms,
    )


def newest[Item](known: Mapping[str, Item], limit: int, after: str | None) -> list[Item]:
    """Those with the largest ids; with `after`, of those that are smaller than it."""
    wanted = (name for name in known if after is None or name < after)
    return [known[name] for name in heapq.nlargest(limit, wanted)]


def _spiffe_id(certificate: x509.Certificate) -> str | None:
    """The one URI that a device's certificate names; None for others."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), None)
