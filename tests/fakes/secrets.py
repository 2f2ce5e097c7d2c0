"""Secrets in memory, for tests: the real rules of a lookup, and nothing to read from.

What cannot stand in a header is not given out, as in every real source.
"""

from collections.abc import Iterable

from palyra_egress.credentials.binding import SecretRef, SecretSource, SecretValue, secret_problem


class SecretsInMemory:
    """A `SecretLookup` that a test fills and changes."""

    def __init__(
        self,
        secrets: dict[str, str] | None = None,
        allowed: frozenset[SecretSource] = frozenset(SecretSource),
    ) -> None:
        self.allowed = allowed
        self.version = 1
        self._held = {SecretRef.parse(ref): text for ref, text in (secrets or {}).items()}

    def put(self, ref: str, text: str) -> None:
        self._held[SecretRef.parse(ref)] = text
        self.version += 1

    def take_away(self, ref: str) -> None:
        del self._held[SecretRef.parse(ref)]
        self.version += 1

    def get(self, ref: SecretRef) -> SecretValue | None:
        text = self._held.get(ref)
        return None if text is None or secret_problem(text) else SecretValue(text)

    def values(self) -> Iterable[SecretValue]:
        return [SecretValue(text) for text in self._held.values() if not secret_problem(text)]
