"""A lease on the monotonic clock: never longer than the fleet said, whatever the clocks do."""

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


@given(end=MONOTONIC, other=MONOTONIC)
def test_a_renewal_never_shortens_what_is_held(end: float, other: float) -> None:
    held = LeaseClock(0.0, end).extended(LeaseClock(0.0, other))
    assert held.end_s == max(end, other)
