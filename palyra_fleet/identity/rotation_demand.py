"""What a demanded rotation takes: another key, then and later; and when nothing is left to do.

A demand is met once no certificate that it named is in use; where one was in use when the deadline
passed, the demand was missed. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palyra_fleet.identity.authority import IssuedLeaf
from palyra_fleet.identity.device_records import (
    CertificateRecord,
    DeviceRecord,
    IdentityEvent,
    IdentityEventReason,
)


def uses_a_replaced_key(leaf: IssuedLeaf, history: Iterable[CertificateRecord]) -> bool:
    """Whether the new certificate has a key of the device that was demanded to be replaced."""
    replaced = [c.certificate_pem for c in history if c.replacement_demanded]
    return bool(replaced) and _key_of(leaf.certificate_pem) in map(_key_of, replaced)


def without_demand(
    devices: Iterable[tuple[DeviceRecord, Sequence[CertificateRecord]]],
) -> tuple[DeviceRecord, ...]:
    """Those whose demand is over, each with its certificates as they are then."""
    return tuple(
        replace(device, rotation=None)
        for device, certificates in devices
        if device.rotation is not None and not any(c.to_be_replaced for c in certificates)
    )


def missed_events(over: Iterable[CertificateRecord]) -> tuple[IdentityEvent, ...]:
    """One for each device that still used a certificate when the deadline for it passed."""
    late = dict.fromkeys(c.device_id for c in over if c.to_be_replaced)
    return tuple(
        IdentityEvent(IdentityEventReason.ROTATION_MISSED, "fleet", {"device_id": device_id})
        for device_id in late
    )


def _key_of(certificate_pem: str) -> bytes:
    key = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
