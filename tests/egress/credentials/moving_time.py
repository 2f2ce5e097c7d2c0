"""Clocks that only a test moves."""

from dataclasses import dataclass

START_UNIX_MS = 1_800_000_000_000


@dataclass
class MovingTime:
    """Monotonic milliseconds from 0; Unix milliseconds move with them."""

    ms: int = 0

    def monotonic_ms(self) -> int:
        return self.ms

    def unix_ms(self) -> int:
        return START_UNIX_MS + self.ms
