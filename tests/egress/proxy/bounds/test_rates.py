"""Requests per minute: a burst of one minute's worth, then the rate, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.proxy.bounds import rates
from palyra_egress.proxy.bounds.rates import RequestRates


def test_without_a_rate_everything_passes():
    assert all(RequestRates().take("w", None, 0) for _ in range(1_000))


def test_a_rate_of_zero_refuses_everything():
    held = RequestRates()
    assert not any(held.take("w", 0, now) for now in (0, 60_000, 600_000))


def test_a_minutes_worth_may_come_at_once_and_then_one_per_interval():
    held = RequestRates()
    assert [held.take("w", 3, 0) for _ in range(4)] == [True, True, True, False]
    assert not held.take("w", 3, 19_999)
    assert held.take("w", 3, 20_000)
    assert not held.take("w", 3, 20_001)


def test_one_workers_requests_are_not_anothers():
    held = RequestRates()
    assert held.take("a", 1, 0)
    assert not held.take("a", 1, 0)
    assert held.take("b", 1, 0)


def test_a_clock_that_goes_back_gives_nothing():
    held = RequestRates()
    assert held.take("w", 1, 60_000)
    assert not held.take("w", 1, 0)
    assert not held.take("w", 1, 59_999)


def test_a_lower_rate_takes_effect_at_once():
    held = RequestRates()
    assert held.take("w", 100, 0)
    assert [held.take("w", 2, 0) for _ in range(3)] == [True, True, False]


def test_memory_is_bounded_and_the_worker_who_asks_is_kept(monkeypatch):
    monkeypatch.setattr(rates, "MAX_BUCKETS", 3)
    held = RequestRates()
    assert held.take("loud", 1, 0)
    for number in range(10):
        held.take(f"w{number}", 1, 0)
        assert not held.take("loud", 1, 0)
        assert len(held._buckets) <= 3


@given(st.integers(1, 50), st.lists(st.integers(0, 5_000), min_size=1, max_size=80).map(sorted))
def test_no_minute_holds_more_than_two_minutes_worth(per_minute, times):
    held = RequestRates()
    allowed = [now for now in times if held.take("w", per_minute, now * 30)]
    for start in allowed:
        inside = [now for now in allowed if start <= now < start + 2_000]
        assert len(inside) <= 2 * per_minute


@pytest.mark.parametrize("per_minute", [1, 7, 600])
def test_in_the_long_run_the_rate_is_the_rate(per_minute):
    held = RequestRates()
    step = 60_000 // (per_minute * 4)
    allowed = sum(held.take("w", per_minute, now) for now in range(0, 600_000, step))
    assert per_minute * 10 <= allowed <= per_minute * 11 + 1
