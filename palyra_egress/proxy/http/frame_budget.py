"""What one side of an HTTP/2 connection may send that carries nothing. Pure, constant memory.

Frames that cost their receiver work and their sender none (PING, SETTINGS, PRIORITY, RST_STREAM,
empty DATA, window updates, unknown types, malformed heads) spend tokens; bytes that pass and
streams that are answered earn some, since honest clients send window updates, pings and
cancellations in proportion to what they get. A bucket refills slowly, so that an idle connection
may do a little for ever. Who has none left is flooding (CVE-2019-9511 to 9518, CVE-2023-44487).
Times are monotonic milliseconds.
"""

from dataclasses import dataclass
from typing import Final

CAPACITY: Final = 2_000
REFILL_PER_S: Final = 200
FRAME_COST: Final = 1
RESET_COST: Final = 10
SETTINGS_COST: Final = 20
MALFORMED_COST: Final = 20  # a head that no policy is asked about; its answer earns half of it back
DATA_EARNS: Final = 3
STREAM_EARNS: Final = RESET_COST


@dataclass(slots=True)
class FrameBudget:
    """The tokens of one side of one connection."""

    at_ms: int
    tokens: float = CAPACITY

    def spend(self, cost: int, now_ms: int) -> bool:
        """Whether a frame of this cost is within the budget."""
        refilled = self.tokens + (now_ms - self.at_ms) * REFILL_PER_S / 1000
        self.at_ms, self.tokens = now_ms, min(CAPACITY, refilled) - cost
        return self.tokens >= 0

    def earn(self, count: int) -> None:
        """Something passed."""
        self.tokens = min(CAPACITY, self.tokens + count)
