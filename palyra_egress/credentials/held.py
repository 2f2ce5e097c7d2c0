"""What sources of secrets answer: values that may be used for a while, and why others may not.

Invariants: a text here says which secret and what is wrong, and nothing of the secret; a value that
is past its time is no value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from palyra_egress.credentials.binding import SecretValue, secret_problem


class SecretUnusable(Exception):
    """Why a secret cannot be had. The text tells nothing of the secret."""


class Held(NamedTuple):
    """A secret, and until when it may be used (monotonic milliseconds; None: no limit)."""

    value: SecretValue
    until_monotonic_ms: int | None = None

    def is_usable(self, now_monotonic_ms: int) -> bool:
        return self.until_monotonic_ms is None or now_monotonic_ms < self.until_monotonic_ms


@dataclass(frozen=True, slots=True)
class Findings:
    """What one source has for the names it was asked for: each in one of the two."""

    held: Mapping[str, Held] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def secret_of(given: bytes) -> SecretValue:
    """The secret in these bytes, less one line end. Raises SecretUnusable."""
    return secret_in(given.decode("ascii", errors="replace"))


def secret_in(given: str) -> SecretValue:
    """The secret in this text, less one line end. Raises SecretUnusable."""
    text = given.removesuffix("\n").removesuffix("\r")
    problem = secret_problem(text)
    if problem is not None:
        raise SecretUnusable(problem)
    return SecretValue(text)
