"""What operators see and take back of what the fleet trusts besides workers."""

from typing import Literal

from pydantic import Field

from palyra_fleet.wire.models import (
    DigestSha256,
    Name,
    ReferenceValues,
    ShortText,
    Ulid,
    UnixMs,
    WireModel,
)


class EnrolDeviceKeyRequest(WireModel):
    """Enrols the key that a paired device has, under a name; a node as a launcher."""

    name: Name
    device_id: Ulid


class EnrolmentView(WireModel):
    """A launcher or proxy. `standing` is `trusted` or `revoked`, of a proxy also `silent` or
    `gapped`; `workers` rest on it; `evidence_seq` is how far a proxy's chain is."""

    kind: Literal["launcher", "proxy"]
    name: Name
    key_sha256: DigestSha256
    standing: str
    device_id: Ulid | None
    workers: int
    evidence_seq: int
    revoked_at_unix_ms: UnixMs | None


class EnrolmentList(WireModel):
    items: tuple[EnrolmentView, ...]


class ReferenceValueView(WireModel):
    """A digest the verifier accepts; so many workers run what it describes."""

    digest_field: Literal["image", "build", "artifact"]
    digest_sha256: DigestSha256
    workers: int


class ReferenceValueList(WireModel):
    items: tuple[ReferenceValueView, ...]


class WithdrawReferences(WireModel):
    values: ReferenceValues = Field()
    reason: ShortText
