"""When a lease or an attestation must be renewed and when the run must stop, on a forward clock.

Pure: `now_s` is the loop's monotonic time in seconds. An end comes as wall-clock time of
the fleet; it is turned into monotonic time once, with the wall clock read *before* the request was
sent, so that a slow answer shortens the lease and a clock set back lengthens nothing. The run is
fenced a little before the end, to leave time for ending its processes. The one class serves both:
what a lease gives and what an attestation gives end in the same way.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

MAX_MARGIN_S: Final = 2.0
SHORTEST_WAIT_S: Final = 0.05
LONGEST_RETRY_S: Final = 30.0
SPREAD: Final = 0.2


@dataclass(frozen=True, slots=True)
class LeaseClock:
    """One lease's or attestation's life: from `begun_s` to `end_s`, monotonic seconds."""

    begun_s: float
    end_s: float

    @classmethod
    def starting(cls, *, expires_at_unix_ms: int, wall_unix_ms: int, now_s: float) -> Self:
        """The life of what was asked for at `now_s`, when the wall clock said `wall_unix_ms`."""
        return cls(now_s, now_s + max(0, expires_at_unix_ms - wall_unix_ms) / 1000)

    @property
    def fence_at_s(self) -> float:
        """When the run must be told to stop: the end less a margin of at most two seconds."""
        return self.end_s - min(MAX_MARGIN_S, (self.end_s - self.begun_s) / 10)

    def renew_after_s(self, now_s: float) -> float:
        """How long to wait before the next attempt to renew: half of what is left."""
        return max(SHORTEST_WAIT_S, (self.end_s - now_s) / 2)

    def extended(self, later: Self) -> Self:
        """The longer of the two: a renewal never shortens what is held."""
        return later if later.end_s > self.end_s else self

    def shortened_to(self, end_s: float) -> Self:
        return replace(self, end_s=min(self.end_s, max(end_s, self.begun_s)))

    def prove_after_s(self, now_s: float, failures: int, spread: float) -> float:
        """How long to wait before proving oneself again: half of what is left, so that there is
        time for many attempts; after a failure 1 s, 2 s, 4 s … up to 30 s. `spread` (0 to 1) takes
        up to a fifth off, so that workers that started together do not come back together."""
        wait_s = max(0.0, self.end_s - now_s) / 2
        if failures:
            wait_s = min(wait_s, LONGEST_RETRY_S, 2.0 ** min(failures - 1, 10))
        return max(SHORTEST_WAIT_S, wait_s * (1 - SPREAD * spread))
