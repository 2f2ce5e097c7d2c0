"""ReplayWindow: a nonce is good once, and only close to now.

What is checked where a caller sends `ReplayProtection`: a timestamp at most five minutes away on
either side, and a nonce this scope did not use inside that window. A scope is the authenticated
device, or the source address before there is one, so that nobody fills another's window. TLS
already keeps strangers from replaying; this stops a client's own accidents and a recorded call of a
client whose key leaked. Nonces are in memory only, so a window that follows an earlier one takes no
timestamp up to its own beginning: the nonces of that time are forgotten. Bounded: a full window
refuses. Times: Unix ms. Pure.
"""

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, refuse

WINDOW_MS: Final = 5 * 60 * 1000
MAX_NONCE_CHARACTERS: Final = 128
MAX_PER_SCOPE: Final = 16_384
MAX_IN_ALL: Final = 1_000_000


@dataclass(slots=True)
class ReplayWindow:
    """Nonces used lately, per scope. `after_unix_ms`: when this window began, if there was one
    before it; timestamps up to then are stale."""

    after_unix_ms: int = 0
    max_per_scope: int = MAX_PER_SCOPE
    max_in_all: int = MAX_IN_ALL
    _seen: set[bytes] = field(default_factory=set)
    _per_scope: dict[str, int] = field(default_factory=dict)
    _order: deque[tuple[int, str, bytes]] = field(default_factory=deque)
    _high_water_unix_ms: int = 0

    def check(
        self, scope: str, nonce: str, timestamp_unix_ms: int, now_unix_ms: int
    ) -> NodeRefusal | None:
        """Remember the nonce, or say why it is refused."""
        if not 1 <= len(nonce) <= MAX_NONCE_CHARACTERS:
            return refuse(NodeReason.REPLAY_MALFORMED)
        now = self._advance(now_unix_ms)
        if abs(timestamp_unix_ms - now) > WINDOW_MS or timestamp_unix_ms <= self.after_unix_ms:
            return refuse(NodeReason.REPLAY_STALE)
        digest = _digest(scope, nonce)
        if digest in self._seen:
            return refuse(NodeReason.REPLAY_SEEN)
        used = self._per_scope.get(scope, 0)
        if used >= self.max_per_scope or len(self._seen) >= self.max_in_all:
            return refuse(NodeReason.REPLAY_FULL)
        self._seen.add(digest)
        self._per_scope[scope] = used + 1
        # a timestamp from the future is good for twice the window
        self._order.append((now + 2 * WINDOW_MS, scope, digest))
        return None

    def _advance(self, now_unix_ms: int) -> int:
        self._high_water_unix_ms = max(self._high_water_unix_ms, now_unix_ms)
        while self._order and self._order[0][0] < self._high_water_unix_ms:
            _, scope, digest = self._order.popleft()
            self._seen.discard(digest)
            left = self._per_scope[scope] - 1
            if left:
                self._per_scope[scope] = left
            else:
                del self._per_scope[scope]
        return self._high_water_unix_ms


def _digest(scope: str, nonce: str) -> bytes:
    return hashlib.sha256(f"{len(scope)}:{scope}{nonce}".encode("utf-8", "replace")).digest()
