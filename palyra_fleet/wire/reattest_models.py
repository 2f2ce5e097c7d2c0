"""The JSON bodies about new evidence and new keys of workers. Times: Unix ms."""

from palyra_fleet.wire.models import (
    DigestSha256,
    DurationMs,
    Nonce,
    ShortText,
    Ulid,
    WireModel,
)


class ReattestRequest(WireModel):
    """An operator demands newer evidence of a worker, with `new_key` under a new key; within the
    time that the fleet's policy says unless `within_ms` does."""

    reason: ShortText
    new_key: bool = False
    within_ms: DurationMs | None = None


class SuccessionPayload(WireModel):
    """What a session's key signs (DSSE) so that the session goes on with the next one: over the
    nonce of the evidence that speaks of the next key."""

    worker_id: Ulid
    nonce: Nonce
    next_key_sha256: DigestSha256
