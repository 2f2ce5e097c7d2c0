"""What a person reads: words for times, states and events, and the numbers behind the charts."""

import pytest

from palyra_fleet.cli.output import moment
from palyra_fleet.console import charts, words
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.ledger.facts import WorkerLifecycleState

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (59_900, "59.9 s"),
        (60_000, "1 min"),
        (3_600_000, "1 h"),
        (172_800_000, "2 d"),
    ],
)
def test_a_length_of_time_is_told_in_the_unit_that_fits(milliseconds: int, text: str) -> None:
    assert words.duration(milliseconds) == text


def test_a_time_is_told_in_utc() -> None:
    assert words.iso(1_795_874_400_123) == "2026-11-28T14:00:00Z"
    assert words.clock_time(1_795_874_400_123) == "2026-11-28 14:00:00"


@pytest.mark.parametrize("unix_ms", [253_402_300_799_999, 253_402_300_800_000, 2**53])
def test_a_time_that_no_calendar_has_is_shown_as_the_last_one(unix_ms: int) -> None:
    """A proxy's evidence may name any time: the page that shows it must still come."""
    assert words.iso(unix_ms) == "9999-12-31T23:59:59Z"
    assert words.clock_time(unix_ms) == "9999-12-31 23:59:59"
    assert moment(unix_ms) == "9999-12-31 23:59:59 UTC"
    assert charts.over_time([unix_ms], 24 * HOUR, HOUR, 24).total == 0


def test_an_id_keeps_its_two_ends_and_a_short_word_stays_whole() -> None:
    assert words.short("01ARZ3NDEKTSV4RRFFQ69G5FAV") == "01ARZ3…9G5FAV"
    assert words.short("proxy-local") == "proxy-local"


def test_events_are_told_by_what_happened() -> None:
    assert words.event_word(EventReason.QUARANTINED_BY_EGRESS) == "quarantined by egress"
    assert words.event_word(EventReason.GRANT_CREATED) == "grant created"
    assert set(words.EVENT_TONES) <= set(EventReason)


def test_every_state_of_a_worker_has_a_tone() -> None:
    assert {state.value for state in WorkerLifecycleState} <= set(words.TONES)


def test_times_are_counted_by_step_and_what_is_older_or_later_is_left_out() -> None:
    now = 24 * HOUR
    times = [0, HOUR - 1, HOUR, now - 1, now, now + 5, -1]
    chart = charts.over_time(times, now, HOUR, 24)
    heights = [bar.height for bar in chart.bars]
    assert (chart.total, chart.highest, len(heights)) == (4, 2, 24)
    assert heights[0] == charts.HEIGHT
    assert heights[1] == heights[23] == charts.HEIGHT / 2
    assert chart.bars[0].title == "2 from 1970-01-01 00:00:00"


def test_a_chart_without_numbers_is_flat() -> None:
    chart = charts.over_time([], 24 * HOUR, HOUR, 24)
    assert {bar.height for bar in chart.bars} == {0}
    assert charts.in_parts({"busy": 0}).bars == ()


def test_parts_are_as_wide_as_their_share_and_fill_the_bar() -> None:
    chart = charts.in_parts({"busy": 3, "failed": 0, "quarantined": 1})
    assert [(bar.tone, bar.width) for bar in chart.bars] == [
        ("good", charts.WIDTH * 0.75),
        ("bad", charts.WIDTH * 0.25),
    ]
    assert chart.bars[1].x == charts.WIDTH * 0.75
