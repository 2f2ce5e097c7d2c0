"""Which certificates a worker may show to a proxy, and until when a device is known by its own.

A worker may show those of the paired device of the same id.

Asked whenever a lease is told to proxies, and looked at again every second and at each revocation,
so that a certificate that was rotated, taken back or has ended leaves the proxies' view.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from palyra_fleet.identity.device_records import CertificateRecord
from palyra_fleet.identity.manager import IdentityManager
from palyra_fleet.identity.messages import PairedDevice

LOOK_EVERY_S: Final = 1.0


def certificates_of(identity: IdentityManager, worker_id: str) -> tuple[str, ...]:
    """The fingerprints that are good now, in a stable order; none for who is no paired device."""
    return tuple(sorted(record.fingerprint for record in _good(identity, worker_id)))


def certificate_end_of(identity: IdentityManager, device_id: str) -> int | None:
    """When the last of a device's good certificates ends, Unix ms; None where none is good now."""
    return max((record.ends_at_unix_ms for record in _good(identity, device_id)), default=None)


def _good(identity: IdentityManager, device_id: str) -> list[CertificateRecord]:
    now = identity.now()
    return [
        record
        for record in identity.history(device_id)
        if isinstance(identity.check(record.fingerprint, now), PairedDevice)
        and record.not_before_unix_ms <= now < record.not_after_unix_ms
    ]


async def keep_looking(look: Callable[[], None]) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        look()
