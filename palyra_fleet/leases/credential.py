"""Egress credentials: 256 random bits per lease, shown once, kept as SHA-256 only.

`EgressSecret` hides its text from `repr`, logs and tracebacks; the text is 43 characters of
base64url. `secret_matches` compares in constant time. A plain SHA-256 is enough for a secret with
256 bits of entropy: there is nothing to guess.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

SECRET_CHARACTERS = 43


def secret_sha256(text: str) -> str:
    """How a secret is stored: hex SHA-256 of its characters."""
    return hashlib.sha256(text.encode()).hexdigest()


def secret_matches(text: str, stored_sha256: str) -> bool:
    """True if `text` is the secret stored as this digest; constant time."""
    return hmac.compare_digest(secret_sha256(text), stored_sha256)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EgressSecret:
    """A freshly minted secret on its way to the one worker that may know it."""

    _text: str

    @classmethod
    def mint(cls) -> "EgressSecret":
        return cls(secrets.token_urlsafe(32))

    @property
    def sha256(self) -> str:
        return secret_sha256(self._text)

    def reveal(self) -> str:
        """The 43 characters. Call it only where the answer to the worker is built."""
        return self._text

    def __repr__(self) -> str:
        return "EgressSecret(…)"
