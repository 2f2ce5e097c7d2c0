"""Lengths of time in the buckets of a Prometheus histogram: milliseconds in, seconds out. Pure."""

from dataclasses import dataclass, field
from typing import Final

BUCKETS_MS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000)


@dataclass(slots=True)
class Durations:
    """Counts by upper bound, the last one without a bound, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    sum_ms: int = 0

    def took(self, ms: int) -> None:
        index = next((i for i, bound in enumerate(BUCKETS_MS) if ms <= bound), len(BUCKETS_MS))
        self.counts[index] += 1
        self.sum_ms += ms

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound in seconds, as the format wants them."""
        found: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*BUCKETS_MS, None), self.counts, strict=True):
            total += count
            found.append(("+Inf" if bound is None else repr(bound / 1000), float(total)))
        return found
