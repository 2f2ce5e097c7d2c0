"""The one place that reads a clock. Everything else takes `now_unix_ms` as an argument."""

import time


def now_unix_ms() -> int:
    """Wall-clock time in Unix milliseconds."""
    return time.time_ns() // 1_000_000
