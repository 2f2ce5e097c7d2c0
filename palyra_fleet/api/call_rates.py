"""How often one caller may call: a token bucket each, in bounded memory. Pure.

A bucket holds `burst` calls and fills at `per_s`. Who has not called for long has a full bucket,
which is the same as none, so the oldest are forgotten first. Times: Unix ms.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

MAX_BUCKETS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` calls a second, and `burst` at once."""

    per_s: float
    burst: int


@dataclass(slots=True)
class CallRates:
    """Buckets by caller."""

    most: int = MAX_BUCKETS
    _buckets: OrderedDict[str, tuple[float, int]] = field(default_factory=OrderedDict)

    def take(self, caller: str, rate: Rate, now_unix_ms: int) -> int | None:
        """Spend one call. None if there was one; else in how many seconds there will be."""
        left, since = self._buckets.pop(caller, (float(rate.burst), now_unix_ms))
        passed_s = max(0, now_unix_ms - since) / 1000
        left = min(float(rate.burst), left + passed_s * rate.per_s)
        spent = left >= 1
        self._buckets[caller] = (left - 1 if spent else left, max(since, now_unix_ms))
        if len(self._buckets) > self.most:
            self._buckets.popitem(last=False)
        return None if spent else max(1, round((1 - left) / rate.per_s))
