"""What operators hear about certificates: everything that tells one apart, and no key.

Times: Unix ms.
"""

from enum import StrEnum
from typing import Final

from palyra_fleet.wire.models import WireModel
from palyra_fleet.wire.page_models import PageModel

LONGEST_MS: Final = 100 * 366 * 24 * 3600 * 1000
"""How far ahead one may ask for certificates that end."""


class CertificateKind(StrEnum):
    """Whose a certificate is."""

    AUTHORITY = "authority"
    SERVER = "server"
    DEVICE = "device"


class Standing(StrEnum):
    """What a certificate is good for now. `pending`: issued and not used yet; `superseded`: another
    has taken its place, and it is still good for a while; `retired`: an authority no more."""

    PENDING = "pending"
    VALID = "valid"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    REVOKED = "revoked"
    RETIRED = "retired"

    @property
    def good(self) -> bool:
        return self in {Standing.PENDING, Standing.VALID, Standing.SUPERSEDED}


def place_of(issued_at_unix_ms: int, fingerprint_sha256: str) -> str:
    """Where a certificate stands in the order of issue; equal for no two."""
    return f"{issued_at_unix_ms:015d}-{fingerprint_sha256}"


class CertificateView(WireModel):
    """A certificate that the fleet issued. `serial` is 40 hex digits; `authority_id` signed it;
    `client_kind` is what its device is, None where that was removed; `ends_at_unix_ms` is before
    `not_after_unix_ms` where an overlap or a demanded rotation ends it."""

    fingerprint_sha256: str
    serial: str
    kind: CertificateKind
    state: Standing
    subject: str
    spiffe_id: str | None
    device_id: str | None
    client_kind: str | None
    authority_id: str
    issued_at_unix_ms: int
    not_before_unix_ms: int
    not_after_unix_ms: int
    ends_at_unix_ms: int
    ended_reason: str | None


class CertificateList(PageModel[CertificateView]):
    """The newest first."""
