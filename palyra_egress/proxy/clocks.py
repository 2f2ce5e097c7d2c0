"""Where the core reads time: Unix milliseconds and monotonic ones. No clock is read here."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clocks:
    """Each call reads the time anew."""

    now_unix_ms: Callable[[], int]
    now_monotonic_ms: Callable[[], int]
