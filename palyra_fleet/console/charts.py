"""Small charts as data for inline SVG: bars over time, and one bar in parts. Pure.

Lengths are in the units of the SVG's viewBox. Every bar carries its words, for the title that a
pointer or a screen reader finds; the page gives each chart a table of the same numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from palyra_fleet.console.words import clock_time, tone_of

WIDTH: Final = 480
HEIGHT: Final = 96
_GAP: Final = 2


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars from left to right, oldest first. `highest` is the number at the top of the chart."""

    bars: tuple[Bar, ...]
    highest: int
    total: int


def over_time(times_unix_ms: Iterable[int], now_unix_ms: int, step_ms: int, steps: int) -> BarChart:
    """How many of the times fall into each of the last `steps` steps."""
    first = now_unix_ms - step_ms * steps
    counts = [0] * steps
    for time in times_unix_ms:
        index = (time - first) // step_ms
        if 0 <= index < steps:
            counts[index] += 1
    titles = [f"{count} from {clock_time(first + n * step_ms)}" for n, count in enumerate(counts)]
    return bars(counts, titles, "bad")


def bars(counts: Sequence[int], titles: Sequence[str], tone: str) -> BarChart:
    """One bar for each number, all of one tone."""
    highest = max(counts, default=0)
    width = WIDTH / max(len(counts), 1)
    drawn = tuple(
        Bar(
            x=round(n * width, 2),
            y=round(HEIGHT - HEIGHT * count / max(highest, 1), 2),
            width=round(max(width - _GAP, 1), 2),
            height=round(HEIGHT * count / max(highest, 1), 2),
            tone=tone,
            title=title,
        )
        for n, (count, title) in enumerate(zip(counts, titles, strict=True))
    )
    return BarChart(drawn, highest, sum(counts))


def stacked(rows: Sequence[Sequence[int]], titles: Sequence[str], tones: Sequence[str]) -> BarChart:
    """One bar for each row, its parts one on the other, the first at the bottom."""
    totals = [sum(row) for row in rows]
    highest = max(totals, default=0)
    width = WIDTH / max(len(rows), 1)
    drawn = []
    for n, (row, title) in enumerate(zip(rows, titles, strict=True)):
        top = float(HEIGHT)
        for count, tone in zip(row, tones, strict=True):
            height = HEIGHT * count / max(highest, 1)
            top -= height
            if count:
                x, y = round(n * width, 2), round(top, 2)
                wide = round(max(width - _GAP, 1), 2)
                drawn.append(Bar(x, y, wide, round(height, 2), tone, title))
    return BarChart(tuple(drawn), highest, sum(totals))


def in_parts(counts: Mapping[str, int]) -> BarChart:
    """One bar whose parts are as wide as their share; parts without anything are left out."""
    total = sum(counts.values())
    drawn, x = [], 0.0
    for name, count in counts.items():
        if count == 0:
            continue
        width = WIDTH * count / total
        title = f"{count} {name}"
        drawn.append(Bar(round(x, 2), 0, round(width, 2), 16, tone_of(name), title))
        x += width
    return BarChart(tuple(drawn), total, total)
