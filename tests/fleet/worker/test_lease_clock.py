"""A lease on the monotonic clock: never longer than the fleet said, whatever the clocks do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.worker.lease_clock import MAX_MARGIN_S, SHORTEST_WAIT_S, LeaseClock

WALL = st.integers(min_value=0, max_value=2**44)
MONOTONIC = st.floats(min_value=0, max_value=1e8)


@given(wall=WALL, expires=WALL, now=MONOTONIC)
def test_a_run_is_fenced_no_later_than_the_lease_ends(wall: int, expires: int, now: float) -> None:
    life = LeaseClock.starting(expires_at_unix_ms=expires, wall_unix_ms=wall, now_s=now)
    assert life.begun_s <= life.end_s
    assert life.end_s - MAX_MARGIN_S <= life.fence_at_s <= life.end_s


def test_the_life_is_counted_from_before_the_request_was_sent() -> None:
    life = LeaseClock.starting(expires_at_unix_ms=61_000, wall_unix_ms=1_000, now_s=500.0)
    assert (life.end_s, life.fence_at_s) == (560.0, 558.0)


def test_a_lease_that_is_over_when_it_arrives_has_no_life() -> None:
    life = LeaseClock.starting(expires_at_unix_ms=1_000, wall_unix_ms=2_000, now_s=500.0)
    assert life.end_s == life.fence_at_s == 500.0


def test_renewal_is_due_at_half_of_what_is_left_and_never_in_a_busy_loop() -> None:
    life = LeaseClock(begun_s=0.0, end_s=100.0)
    assert life.renew_after_s(0.0) == 50.0
    assert life.renew_after_s(80.0) == 10.0
    assert life.renew_after_s(200.0) == SHORTEST_WAIT_S


@pytest.mark.parametrize(
    ("now_s", "failures", "wait_s"),
    [
        (0.0, 0, 450.0),
        (600.0, 0, 150.0),
        (450.0, 1, 1.0),
        (450.0, 2, 2.0),
        (450.0, 4, 8.0),
        (450.0, 6, 30.0),
        (450.0, 1_000, 30.0),
        (890.0, 9, 5.0),  # never later than half of what is left
        (900.0, 0, SHORTEST_WAIT_S),
        (999.0, 3, SHORTEST_WAIT_S),
    ],
)
def test_a_proof_is_due_at_half_of_what_is_left_and_tried_often_after_a_failure(
    now_s: float, failures: int, wait_s: float
) -> None:
    assert LeaseClock(0.0, 900.0).prove_after_s(now_s, failures, 0.0) == wait_s


@given(now=st.floats(0, 899), failures=st.integers(0, 50), spread=st.floats(0, 1))
def test_spreading_makes_a_proof_earlier_by_a_fifth_at_most(
    now: float, failures: int, spread: float
) -> None:
    life = LeaseClock(0.0, 900.0)
    least, most = life.prove_after_s(now, failures, 1.0), life.prove_after_s(now, failures, 0.0)
    assert least <= life.prove_after_s(now, failures, spread) <= most
    assert most * 0.799 <= least


def test_what_is_held_can_be_shortened_and_not_below_nothing() -> None:
    life = LeaseClock(10.0, 100.0)
    assert life.shortened_to(50.0).end_s == 50.0
    assert life.shortened_to(200.0).end_s == 100.0
    assert life.shortened_to(1.0).end_s == 10.0


@given(end=MONOTONIC, other=MONOTONIC)
def test_a_renewal_never_shortens_what_is_held(end: float, other: float) -> None:
    held = LeaseClock(0.0, end).extended(LeaseClock(0.0, other))
    assert held.end_s == max(end, other)
