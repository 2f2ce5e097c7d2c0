"""The one place on the egress side that reads clocks. Everything else takes times as arguments."""

import time
from datetime import UTC, datetime

from palyra_fleet.clock import now_unix_ms

__all__ = ["now_monotonic_ms", "now_unix_ms", "now_unix_s", "now_utc"]


def now_monotonic_ms() -> int:
    """Monotonic milliseconds: for freshness, deadlines, durations; of this process only."""
    return time.monotonic_ns() // 1_000_000


def now_unix_s() -> float:
    """The wall clock in Unix seconds, as mitmproxy notes when connections were made."""
    return time.time_ns() / 1e9


def now_utc() -> datetime:
    """Wall-clock time as an aware datetime: for certificates."""
    return datetime.fromtimestamp(time.time_ns() / 1e9, tz=UTC)
