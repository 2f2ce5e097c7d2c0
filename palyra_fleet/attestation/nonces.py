"""NonceBook: nonces that evidence must carry; single use, short-lived, bound to key and purpose.

A nonce is 32 random bytes in base64url, made by the caller (this module is pure) and kept only as
SHA-256. A book lives in memory: a restart forgets every nonce, which refuses and never admits. A
nonce is spent by the first presentation, whatever becomes of it. The number outstanding is bounded,
in all and per key, so that asking costs the asker first. Times: Unix ms.
"""

import hashlib
from dataclasses import dataclass, field

from palyra_fleet.refusals import FleetReason, Refusal

MAX_OUTSTANDING = 100_000
MAX_PER_KEY = 1_024


@dataclass(frozen=True, slots=True)
class _Entry:
    key_sha256: str
    purpose: str
    expires_at_unix_ms: int


@dataclass(slots=True)
class NonceBook:
    """Outstanding nonces by digest, oldest first (every nonce lives equally long)."""

    ttl_ms: int
    _entries: dict[bytes, _Entry] = field(default_factory=dict)
    _per_key: dict[str, int] = field(default_factory=dict)
    _high_water_unix_ms: int = 0

    def issue(self, nonce: str, key_sha256: str, purpose: str, now_unix_ms: int) -> int | Refusal:
        """Remember a fresh nonce; answers when it expires."""
        now = self._advance(now_unix_ms)
        full = len(self._entries) >= MAX_OUTSTANDING
        if full or self._per_key.get(key_sha256, 0) >= MAX_PER_KEY:
            text = "too many nonces are outstanding; use one or let them expire"
            return Refusal(FleetReason.NONCE_LIMIT, text)
        expires_at_unix_ms = now + self.ttl_ms
        entry = _Entry(key_sha256, purpose, expires_at_unix_ms)
        self._entries[_digest(nonce)] = entry
        self._per_key[key_sha256] = self._per_key.get(key_sha256, 0) + 1
        return expires_at_unix_ms

    def spend(self, nonce: str, key_sha256: str, purpose: str, now_unix_ms: int) -> int | Refusal:
        """Use up a nonce; answers when it was issued. One text for every failure, so that probing
        teaches nothing."""
        now = self._advance(now_unix_ms)
        refusal = Refusal(
            FleetReason.NONCE_REFUSED, "the nonce is unknown, spent, late or not this key's"
        )
        digest = _digest(nonce)
        entry = self._entries.get(digest)
        if entry is None or entry.key_sha256 != key_sha256:
            return refusal
        self._remove(digest)
        late = now >= entry.expires_at_unix_ms
        if late or entry.purpose != purpose:
            return refusal
        return entry.expires_at_unix_ms - self.ttl_ms

    def forget_issued_before(self, unix_ms: int) -> None:
        """What was begun with an older nonce, whosoever it is, must begin anew."""
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].expires_at_unix_ms - self.ttl_ms >= unix_ms:
                return
            self._remove(oldest)

    def _advance(self, now_unix_ms: int) -> int:
        self._high_water_unix_ms = max(self._high_water_unix_ms, now_unix_ms)
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].expires_at_unix_ms > self._high_water_unix_ms:
                break
            self._remove(oldest)
        return self._high_water_unix_ms

    def _remove(self, digest: bytes) -> None:
        entry = self._entries.pop(digest)
        left = self._per_key[entry.key_sha256] - 1
        if left:
            self._per_key[entry.key_sha256] = left
        else:
            del self._per_key[entry.key_sha256]


def _digest(nonce: str) -> bytes:
    return hashlib.sha256(nonce.encode()).digest()
