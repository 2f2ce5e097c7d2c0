"""How long quarantines took, from the proxy's refusal until the fleet held the evidence. Pure.

In bands, as a chart that is its own table. What the fleet's metric
`palyra_fleet_quarantine_latency_seconds` counts since its start, this tells of the last quarantines
in the ledger, whenever they were. The proxy that refuses has blocked the worker itself before it
sends evidence, so this is how long the other proxies went without knowing. Times: ms; the two
machines' clocks are compared, and a clock that is ahead counts as nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from palyra_fleet.wire.models import ViolationView

LOOKED_AT: Final = 50
LATE_MS: Final = 1_000
"""Above this the shipped alert rules call it slow."""
_BANDS: Final = (
    (10, "up to 10 ms", "good"),
    (100, "up to 100 ms", "good"),
    (LATE_MS, "up to 1 s", "good"),
    (10_000, "up to 10 s", "warn"),
    (2**63, "longer", "bad"),
)


@dataclass(frozen=True, slots=True)
class Band:
    """How many took so long, bounds included above."""

    words: str
    count: int
    tone: str


@dataclass(frozen=True, slots=True)
class LatencyPicture:
    """Of the last `count` quarantines by evidence, at least one."""

    count: int
    middle_ms: int
    longest_ms: int
    bands: tuple[Band, ...]

    @property
    def largest(self) -> int:
        return max(band.count for band in self.bands)


def picture(newest_first: Sequence[ViolationView]) -> LatencyPicture | None:
    """Of the newest evidence that quarantined somebody; None where none did."""
    caused = [one for one in newest_first if one.outcome == "quarantined"][:LOOKED_AT]
    took = sorted(max(0, one.received_at_unix_ms - one.payload.at_unix_ms) for one in caused)
    if not took:
        return None
    return LatencyPicture(len(took), took[len(took) // 2], took[-1], tuple(_bands(took)))


def _bands(took: Sequence[int]) -> Iterable[Band]:
    above = -1
    for bound, words, tone in _BANDS:
        yield Band(words, sum(above < one <= bound for one in took), tone)
        above = bound
