"""JoinTokenBook: tokens that operators minted to let one worker join, in one private file.

A token is 32 random bytes, shown once and kept as SHA-256. It has a purpose and an identity, ends
soon, and is used up by the first key that shows it: that key may attest with it again for as long
as `session_ms` from then on, and no other key ever. Every change replaces the file in one durable
step before it counts; a file that does not say exactly what this module writes stops the start,
since a token that was used must not come back. Times: Unix ms. One process owns the file.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, ValidationError

from palyra_fleet import private_files
from palyra_fleet.leases.credential import secret_sha256
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.ids import is_canonical_ulid
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.labels import LabelMap
from palyra_fleet.wire.models import DigestSha256, Name, Principal, Ulid, UnixMs, WireModel

MAX_TOKENS: Final = 10_000
DEFAULT_SESSION_MS: Final = 12 * 3_600_000
REGISTER: Final = "register"
_MAX_FILE_BYTES: Final = 16 * 1024 * 1024


class JoinTokenFileError(Exception):
    """The file of join tokens is not usable; the text names it and what to do."""


class JoinToken(WireModel):
    """A token as kept. `identity` is what the worker is called for ever; `labels` are given to it
    when it is new to the fleet."""

    token_id: Ulid
    token_sha256: DigestSha256 = Field(repr=False)
    purpose: Literal["register"]
    identity: Name
    minted_by: Principal
    minted_at_unix_ms: UnixMs
    expires_at_unix_ms: UnixMs
    session_ms: int = Field(ge=1)
    used_by_key_sha256: DigestSha256 | None = None
    used_at_unix_ms: UnixMs | None = None
    revoked: bool = False
    labels: LabelMap = Field(default_factory=dict)

    @property
    def ends_at_unix_ms(self) -> int:
        """When it vouches for nobody any more."""
        if self.used_at_unix_ms is None:
            return self.expires_at_unix_ms
        return self.used_at_unix_ms + self.session_ms

    @property
    def evidence_identity(self) -> str:
        return f"join_token:{self.identity}"


class _File(WireModel):
    version: Literal[1]
    tokens: tuple[JoinToken, ...] = Field(max_length=MAX_TOKENS)


@dataclass(frozen=True, slots=True)
class NewToken:
    """What an operator asks for."""

    token_id: str
    identity: str
    minted_by: str
    ttl_ms: int
    session_ms: int = DEFAULT_SESSION_MS
    labels: Mapping[str, str] = field(default_factory=dict)


class JoinTokenBook:
    """The tokens known now."""

    def __init__(self, file: Path | None, tokens: tuple[JoinToken, ...] = ()) -> None:
        self._file = file
        self._by_digest = {token.token_sha256: token for token in tokens}

    @classmethod
    def open(cls, file: Path) -> Self:
        """Read the file; none yet means no token. Raises JoinTokenFileError."""
        return cls(file, _read(file))

    def __repr__(self) -> str:
        return f"JoinTokenBook({len(self._by_digest)} tokens)"

    def all(self) -> tuple[JoinToken, ...]:
        """Newest first."""
        return tuple(sorted(self._by_digest.values(), key=lambda one: one.token_id, reverse=True))

    def mint(self, asked: NewToken, now_unix_ms: int) -> tuple[str, JoinToken] | Refusal:
        """A fresh token: the text to show once, and what is kept. Blocks until it is durable."""
        kept = self._without_ended(now_unix_ms)
        if len(kept) >= MAX_TOKENS:
            return Refusal(FleetReason.COMMAND_INVALID, f"{MAX_TOKENS} join tokens are open")
        if not is_canonical_ulid(asked.token_id):
            return Refusal(FleetReason.ID_INVALID, "the token's id is not a ULID")
        text = secrets.token_urlsafe(32)
        token = JoinToken(
            token_id=asked.token_id,
            token_sha256=secret_sha256(text),
            purpose=REGISTER,
            identity=asked.identity,
            minted_by=asked.minted_by,
            minted_at_unix_ms=now_unix_ms,
            expires_at_unix_ms=now_unix_ms + asked.ttl_ms,
            session_ms=asked.session_ms,
            labels=dict(asked.labels),
        )
        self._keep({**kept, token.token_sha256: token})
        return text, token

    def revoke(self, token_id: str) -> JoinToken | None:
        """Take a token back, used or not; None if there is none of that id. Blocks."""
        for digest, token in self._by_digest.items():
            if token.token_id == token_id:
                gone = token.model_copy(update={"revoked": True})
                self._keep({**self._by_digest, digest: gone})
                return gone
        return None

    def find(self, text: str, key_sha256: str, purpose: str, now_unix_ms: int) -> JoinToken | None:
        """The token, if it may vouch for this key now. Uses nothing up."""
        given = secret_sha256(text)
        token = self._by_digest.get(given)
        if token is None or not hmac.compare_digest(token.token_sha256, given):
            return None
        of_this_key = token.used_by_key_sha256 in {None, key_sha256}
        holds = not token.revoked and now_unix_ms < token.ends_at_unix_ms
        return token if of_this_key and holds and token.purpose == purpose else None

    def use(self, text: str, key_sha256: str, purpose: str, now_unix_ms: int) -> bool:
        """Use the token up for this key; False if it may not vouch for it. Blocks until durable."""
        token = self.find(text, key_sha256, purpose, now_unix_ms)
        if token is None:
            return False
        if token.used_by_key_sha256 is None:
            used = token.model_copy(
                update={"used_by_key_sha256": key_sha256, "used_at_unix_ms": now_unix_ms}
            )
            self._keep({**self._by_digest, token.token_sha256: used})
        return True

    def _without_ended(self, now_unix_ms: int) -> dict[str, JoinToken]:
        return {
            digest: token
            for digest, token in self._by_digest.items()
            if now_unix_ms < token.ends_at_unix_ms
        }

    def _keep(self, tokens: dict[str, JoinToken]) -> None:
        if self._file is not None:
            content = _File(version=1, tokens=tuple(tokens.values())).model_dump_json(indent=2)
            private_files.replace(self._file, content.encode() + b"\n")
        self._by_digest = tokens


def _read(file: Path) -> tuple[JoinToken, ...]:
    if not file.exists():
        return ()
    try:
        found = _File.model_validate_json(private_files.read_private(file, _MAX_FILE_BYTES))
    except KeyFileError as error:
        raise JoinTokenFileError(str(error)) from error
    except ValidationError as error:
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "the file"
        text = f"{file}: {place} is not as this program writes it; restore it from a backup"
        raise JoinTokenFileError(text) from None
    digests = {token.token_sha256 for token in found.tokens}
    if len(digests) != len(found.tokens):
        raise JoinTokenFileError(f"{file}: a token stands twice; restore it from a backup")
    return found.tokens
