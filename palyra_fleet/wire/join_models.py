"""The JSON bodies about join tokens. A token travels once, in `JoinTokenMinted`."""

from pydantic import Field

from palyra_fleet.wire.labels import LabelMap
from palyra_fleet.wire.models import DurationMs, Name, ShortText, Ulid, UnixMs, WireModel


class MintJoinToken(WireModel):
    """Asks for a token that lets one worker join as `identity`, within `ttl_ms`, and attest with
    it for `session_ms` from then on. A worker that is new to the fleet gets `labels`."""

    identity: Name
    ttl_ms: DurationMs = 600_000
    session_ms: DurationMs = 12 * 3_600_000
    labels: LabelMap = Field(default_factory=dict)
    reason: ShortText


class JoinTokenView(WireModel):
    """A token as operators see it. `used_by_key_sha256` names the one key that used it."""

    token_id: Ulid
    identity: Name
    minted_by: str
    minted_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs
    session_ms: int
    labels: dict[str, str]
    used_by_key_sha256: str | None
    used_at_unix_ms: UnixMs | None
    revoked: bool


class JoinTokenMinted(WireModel):
    """A token that was just made; it is not shown again."""

    join_token: JoinTokenView
    token: str = Field(repr=False)


class JoinTokenList(WireModel):
    items: tuple[JoinTokenView, ...]
