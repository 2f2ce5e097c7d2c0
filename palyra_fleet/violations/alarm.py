"""An alarm about evidence that names leases this fleet never gave. Pure.

Such evidence is accepted so that the proxy's chain goes on, and it stops nobody; so somebody must
be told: the fleet's state is older than the proxy remembers, or the proxy lies. The alarm counts
since the fleet started and falls silent an hour after the last; the event log keeps every piece.
The text names neither worker nor proxy: health is open to anybody. Times: Unix ms.
"""

from dataclasses import dataclass
from typing import Final

SILENT_AFTER_MS: Final = 3_600_000


@dataclass(slots=True)
class UnboundEvidence:
    """How much came, and when the last."""

    count: int = 0
    last_at_unix_ms: int = 0

    def note(self, now_unix_ms: int) -> None:
        self.count += 1
        self.last_at_unix_ms = now_unix_ms

    def alarm(self, now_unix_ms: int) -> str | None:
        """What to tell, or None."""
        if not self.count or now_unix_ms - self.last_at_unix_ms >= SILENT_AFTER_MS:
            return None
        return (
            f"{self.count} pieces of evidence name a lease this fleet never gave"
            " (events with why=not_bound); was its state restored from an old backup?"
        )
