"""When a held lease must be renewed and when its run must stop, on a clock that only goes forward.

Pure: `now_s` is the loop's monotonic time in seconds. The lease's end comes as wall-clock time of
the fleet; it is turned into monotonic time once, with the wall clock read *before* the request was
sent, so that a slow answer shortens the lease and a clock set back lengthens nothing. The run is
fenced a little before the end, to leave time for ending its processes.
"""

from dataclasses import dataclass
from typing import Final, Self

MAX_MARGIN_S: Final = 2.0
SHORTEST_WAIT_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class LeaseClock:
    """One lease's life: from `begun_s` to `end_s`, monotonic seconds."""

    begun_s: float
    end_s: float

    @classmethod
    def starting(cls, *, expires_at_unix_ms: int, wall_unix_ms: int, now_s: float) -> Self:
        """The life of a lease asked for at `now_s`, when the wall clock said `wall_unix_ms`."""
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
