"""ConsoleSessions: who is signed in to the console, in memory only.

A session begins with a principal's token and has a secret of its own in an HttpOnly cookie, so that
no page and no script ever holds the token. It ends 30 minutes after its last use, after 12 hours in
any case, at sign-out, when the token behind it is replaced, revoked or over (a token of an issuer
at its own end), and with the process.
Each sign-in makes a new secret (no fixation). Sessions are found by the SHA-256 of their secret. A
change needs the session's second secret in a header, which a foreign page can neither read nor
send. Numbers are bounded; the oldest makes room. Times: Unix ms.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.principals.book import Principal

IDLE_MS: Final = 30 * 60_000
LONGEST_MS: Final = 12 * 3_600_000
MAX_SESSIONS: Final = 1_000
MAX_OF_ONE: Final = 20
_SECRET_BYTES: Final = 32


@dataclass(slots=True)
class ConsoleSession:
    """Somebody who is signed in."""

    principal: Principal
    csrf_token: str = field(repr=False)
    began_unix_ms: int
    used_unix_ms: int
    until_unix_ms: int | None = None

    def ends_at_unix_ms(self) -> int:
        """When it ends if it is not used again."""
        ends = min(self.used_unix_ms + IDLE_MS, self.began_unix_ms + LONGEST_MS)
        return ends if self.until_unix_ms is None else min(ends, self.until_unix_ms)

    def allows(self, csrf_token: str | None) -> bool:
        """Whether this is the header of this session's pages."""
        return csrf_token is not None and hmac.compare_digest(
            self.csrf_token.encode(), csrf_token.encode(errors="surrogateescape")
        )


@dataclass(slots=True)
class ConsoleSessions:
    """The sessions of one process. `known` answers whether a principal still holds as it was."""

    known: Callable[[Principal, int], bool]
    _by_digest: dict[str, ConsoleSession] = field(default_factory=dict, repr=False)

    def begin(
        self, principal: Principal, now_unix_ms: int, until_unix_ms: int | None = None
    ) -> tuple[str, ConsoleSession]:
        """Sign in, at most until then; the secret for the cookie, told once."""
        own = [d for d, s in self._by_digest.items() if s.principal.name == principal.name]
        if len(own) >= MAX_OF_ONE:
            del self._by_digest[own[0]]
        if len(self._by_digest) >= MAX_SESSIONS:
            del self._by_digest[next(iter(self._by_digest))]
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        session = ConsoleSession(
            principal,
            secrets.token_urlsafe(_SECRET_BYTES),
            now_unix_ms,
            now_unix_ms,
            until_unix_ms,
        )
        self._by_digest[_digest(secret)] = session
        return secret, session

    def find(
        self, secret: str | None, now_unix_ms: int, *, uses: bool = True
    ) -> ConsoleSession | None:
        """The session of a cookie; None if there is none any more. `uses` makes it last longer."""
        if secret is None:
            return None
        digest = _digest(secret)
        session = self._by_digest.get(digest)
        if session is None:
            return None
        over = now_unix_ms >= session.ends_at_unix_ms() or now_unix_ms < session.began_unix_ms
        if over or not self.known(session.principal, now_unix_ms):
            del self._by_digest[digest]
            return None
        if uses:
            session.used_unix_ms = max(session.used_unix_ms, now_unix_ms)
        return session

    def end(self, secret: str | None) -> None:
        """Sign out."""
        if secret is not None:
            self._by_digest.pop(_digest(secret), None)

    def end_all(self) -> None:
        """Sign everybody out: the process stops."""
        self._by_digest.clear()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
