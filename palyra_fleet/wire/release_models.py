"""The JSON bodies about releases that take two persons. Times: Unix ms."""

from palyra_fleet.wire.models import DigestSha256, Ulid, UnixMs, WireModel


class ReleaseRequestView(WireModel):
    """An open request to release a quarantined worker. It speaks of the quarantine since then (and
    the evidence behind it, if it was evidence) and of the newer evidence with that number and key;
    it is void when either changes, and over at its end."""

    release_id: Ulid
    worker_id: Ulid
    asked_by: str
    why: str
    asked_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs
    quarantine_reason: str
    quarantined_at_unix_ms: UnixMs
    quarantine_evidence_sha256: DigestSha256 | None
    attestation_epoch: int
    key_sha256: DigestSha256
