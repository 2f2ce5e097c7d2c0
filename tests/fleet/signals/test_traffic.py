"""The book of the proxies' traffic: what is new in a report, by the minute, and what is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from palyra_fleet.api.call import MAX_BODY_BYTES
from palyra_fleet.signals.traffic import TrafficBook
from palyra_fleet.wire.traffic_models import (
    MAX_PROXIES,
    MAX_REASONS,
    MAX_RULES,
    MAX_WORKERS,
    MINUTE_MS,
    MINUTES_KEPT,
    REASONS_LEFT_OUT,
    REPORTS_APART_MS,
    RuleVerdicts,
    TrafficReport,
    TrafficView,
    WorkerBytes,
)

BEGAN = 1_000 * MINUTE_MS
EVERYBODY = {"one-more", *(f"proxy-{number}" for number in range(MAX_PROXIES))}
HOST = "egress.host_not_allowed"
WORKER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def report(allowed: int, refused: int = 0, *, since: int = BEGAN, sent: int = 0) -> TrafficReport:
    return TrafficReport(
        since_unix_ms=since,
        allowed={"egress.allowed": allowed},
        refused={HOST: refused} if refused else {},
        bytes_out=sent,
    )


def seen(book: TrafficBook, now: int = BEGAN) -> TrafficView:
    return book.view(now, EVERYBODY)


def told(book: TrafficBook, now: int = BEGAN) -> list[tuple[int, int, int]]:
    return [(one.allowed, one.refused, one.bytes_out) for one in seen(book, now).minutes]


def test_what_a_report_adds_to_the_one_before_is_counted_in_its_minute() -> None:
    book = TrafficBook(BEGAN)
    book.reported("proxy-1", report(3, 1, sent=10), BEGAN + 1)
    book.reported("proxy-1", report(5, 1, sent=10), BEGAN + 2)
    book.reported("proxy-1", report(5, 4, sent=15), BEGAN + MINUTE_MS)
    assert told(book) == [(5, 1, 10), (0, 3, 5)]
    assert seen(book).minutes[1].refused_by_reason == {HOST: 3}


def test_proxies_are_added_up_by_the_minute() -> None:
    book = TrafficBook(BEGAN)
    book.reported("proxy-1", report(3), BEGAN)
    book.reported("proxy-2", report(4, 2), BEGAN + 5)
    assert told(book) == [(7, 2, 0)]
    assert [one.proxy_id for one in seen(book).proxies] == ["proxy-1", "proxy-2"]


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(report(2, since=BEGAN + 5), id="another start"),
        pytest.param(report(2), id="a count that went back"),
        pytest.param(report(2, since=BEGAN - 5), id="another start, earlier"),
    ],
)
def test_a_proxy_that_started_anew_counts_from_nothing(again: TrafficReport) -> None:
    book = TrafficBook(BEGAN)
    book.reported("proxy-1", report(10), BEGAN)
    book.reported("proxy-1", again, BEGAN)
    assert told(book) == [(12, 0, 0)]
    assert seen(book).proxies[0].restarts == 1


def test_bytes_that_went_back_are_a_new_start_too() -> None:
    book = TrafficBook(BEGAN)
    book.reported("proxy-1", report(10, sent=9), BEGAN)
    book.reported("proxy-1", report(10, sent=8), BEGAN)
    assert told(book) == [(20, 0, 17)]


def test_what_an_older_proxy_counted_before_the_fleet_started_is_not_new() -> None:
    book = TrafficBook(BEGAN)
    book.reported("proxy-1", report(1_000, since=BEGAN - 1), BEGAN)
    book.reported("proxy-1", report(1_002, since=BEGAN - 1), BEGAN)
    assert told(book) == [(2, 0, 0)]
    assert seen(book).known_since_unix_ms == BEGAN


def test_three_hours_are_kept_and_no_more() -> None:
    book = TrafficBook(BEGAN)
    for minute in range(MINUTES_KEPT + 5):
        book.reported("proxy-1", report(minute + 1), BEGAN + minute * MINUTE_MS)
    assert len(seen(book).minutes) == MINUTES_KEPT
    long_after = BEGAN + 10 * MINUTES_KEPT * MINUTE_MS
    assert told(book, long_after) == []


def test_of_too_many_proxies_the_one_silent_for_longest_is_forgotten() -> None:
    book = TrafficBook(BEGAN)
    for number in range(MAX_PROXIES):
        book.reported(f"proxy-{number}", report(1), BEGAN)
    book.reported("proxy-0", report(2), BEGAN)
    book.reported("one-more", report(1), BEGAN)
    names = {one.proxy_id for one in seen(book).proxies}
    assert len(names) == MAX_PROXIES
    assert "proxy-0" in names and "proxy-1" not in names


def test_a_clock_that_goes_back_opens_no_second_row_for_a_minute() -> None:
    book = TrafficBook(BEGAN)
    book.reported("proxy-1", report(1), BEGAN + MINUTE_MS)
    book.reported("proxy-1", report(2), BEGAN)
    assert told(book) == [(2, 0, 0)]


@given(st.lists(st.tuples(st.integers(0, 2**53), st.booleans()), max_size=30))
def test_whatever_a_proxy_says_no_minute_goes_below_nothing(said: list[tuple[int, bool]]) -> None:
    book = TrafficBook(BEGAN)
    for count, bent in said:
        told_now = report(count, count // 2, since=BEGAN + bent)
        book.reported("proxy-1", told_now, BEGAN)
    assert all(min(row) >= 0 for row in told(book))


FINE = report(1).model_dump()


@pytest.mark.parametrize(
    "bent",
    [
        pytest.param({"allowed": {"egress.allowed": -1}}, id="a negative count"),
        pytest.param({"allowed": {"egress.allowed": 2**53 + 1}}, id="a count beyond any"),
        pytest.param({"allowed": {"egress.allowed": 1.0}}, id="a count that is none"),
        pytest.param({"refused": {"<script>alert(1)</script>": 1}}, id="a reason with markup"),
        pytest.param({"refused": {"egress." + "x" * 49: 1}}, id="a long reason"),
        pytest.param({"refused": {"egress.host\n": 1}}, id="a reason with a line feed"),
        pytest.param(
            {"refused": {f"egress.r{n}": 1 for n in range(MAX_REASONS + 1)}}, id="many reasons"
        ),
        pytest.param({"rules": ({"rule_id": "a b"},)}, id="a rule with a space"),
        pytest.param({"rules": ({"rule_id": "r"}, {"rule_id": "r"})}, id="a rule named twice"),
        pytest.param(
            {"rules": tuple({"rule_id": f"r{n}"} for n in range(MAX_RULES + 1))}, id="many rules"
        ),
        pytest.param({"workers": ({"worker_id": "me"},)}, id="a worker that is no id"),
        pytest.param({"workers": ({"worker_id": WORKER},) * 2}, id="a worker named twice"),
        pytest.param({"workers": ({"worker_id": WORKER},) * (MAX_WORKERS + 1)}, id="many workers"),
        pytest.param({"policy_digest": "x"}, id="a digest that is none"),
        pytest.param({"since_unix_ms": -1}, id="a start before all time"),
        pytest.param({"proxy_id": "another"}, id="a field that nobody knows"),
    ],
)
def test_a_report_that_has_not_its_form_is_refused(bent: dict[str, object]) -> None:
    assert TrafficReport.model_validate(FINE) == report(1)
    with pytest.raises(ValidationError):
        TrafficReport.model_validate(FINE | bent)


def test_the_largest_report_there_can_be_fits_the_body_of_a_call() -> None:
    most = 2**53
    largest = TrafficReport(
        since_unix_ms=most,
        allowed={f"egress.b{n:0>3}" + "x" * 44: most for n in range(MAX_REASONS)},
        refused={f"egress.a{n:0>3}" + "x" * 44: most for n in range(MAX_REASONS)},
        bytes_out=most,
        bytes_in=most,
        policy_digest="0" * 64,
        rules=tuple(
            RuleVerdicts(rule_id=f"{n:0>3}" + "x" * 61, allowed=most, refused=most)
            for n in range(MAX_RULES)
        ),
        workers=tuple(
            WorkerBytes(worker_id=f"0{n:0>25}", bytes_out=most, bytes_in=most)
            for n in range(MAX_WORKERS)
        ),
    )
    assert len(largest.model_dump_json()) < MAX_BODY_BYTES


def test_a_thousand_reasons_in_a_minute_are_kept_as_few() -> None:
    book = TrafficBook(BEGAN)
    for run in range(10):
        refused = {f"egress.r{run}_{number}": 1 for number in range(MAX_REASONS)}
        lying = TrafficReport(since_unix_ms=BEGAN + run, refused=refused)
        book.reported("proxy-1", lying, BEGAN)
    (minute,) = seen(book).minutes
    assert len(minute.refused_by_reason) == MAX_REASONS + 1
    assert sum(minute.refused_by_reason.values()) == minute.refused == 10 * MAX_REASONS
    assert minute.refused_by_reason[REASONS_LEFT_OUT] == 9 * MAX_REASONS


def test_what_a_proxy_that_was_taken_back_had_told_is_in_no_view() -> None:
    book = TrafficBook(BEGAN)
    book.reported("proxy-1", report(3), BEGAN)
    view = book.view(BEGAN, {"proxy-2"})
    assert (view.proxies, view.minutes) == ((), ())


def test_a_proxy_reports_twice_a_second_at_most() -> None:
    book = TrafficBook(BEGAN)
    assert book.is_due("proxy-1", BEGAN)
    book.reported("proxy-1", report(1), BEGAN)
    assert not book.is_due("proxy-1", BEGAN + REPORTS_APART_MS - 1)
    assert book.is_due("proxy-1", BEGAN + REPORTS_APART_MS)
    assert book.is_due("proxy-2", BEGAN)
    assert book.is_due("proxy-1", BEGAN - 1)  # a clock that was set back stops nobody
