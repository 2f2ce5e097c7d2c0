"""Requests per minute and worker: a token bucket each, in bounded memory. Pure.

A bucket holds one minute's worth of requests and refills evenly, so a worker may burst once and
then goes at its rate. Times are monotonic milliseconds.
"""

from dataclasses import dataclass, field

MAX_BUCKETS = 100_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at_monotonic_ms: int


@dataclass(slots=True)
class RequestRates:
    """All buckets, oldest use first."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def take(self, worker_id: str, per_minute: int | None, now_monotonic_ms: int) -> bool:
        """Spend one request of the worker's rate. None means no rate is set, 0 refuses all."""
        if per_minute is None:
            return True
        bucket = self._buckets.pop(worker_id, None)
        if bucket is None:
            bucket = _Bucket(float(per_minute), now_monotonic_ms)
        elapsed = max(0, now_monotonic_ms - bucket.filled_at_monotonic_ms)
        bucket.tokens = min(float(per_minute), bucket.tokens + elapsed * per_minute / 60_000)
        bucket.filled_at_monotonic_ms = now_monotonic_ms
        allowed = bucket.tokens >= 1
        if allowed:
            bucket.tokens -= 1
        self._buckets[worker_id] = bucket
        if len(self._buckets) > MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return allowed


@dataclass(slots=True)
class SharedRate:
    """One rate for everybody together, of which no source has more than its part."""

    _all: RequestRates = field(default_factory=RequestRates)
    _sources: RequestRates = field(default_factory=RequestRates)

    def take(self, source: str, per_source: int, per_minute: int, now_monotonic_ms: int) -> bool:
        """Spend one request of both rates; one that is beyond its source's costs the others
        nothing."""
        return self._sources.take(source, per_source, now_monotonic_ms) and self._all.take(
            "all", per_minute, now_monotonic_ms
        )
