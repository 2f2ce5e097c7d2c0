"""The clock: follows the wall clock forward at once, and never runs slower than real time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.clock import (
    ClockMark,
    ForwardClock,
    now_unix_ms,
    process_clock,
    timekeeper,
)


class Clocks:
    def __init__(self) -> None:
        self.wall, self.monotonic, self.boot_id = 1_000_000, 50, "boot-1"

    def forward(self) -> ForwardClock:
        return ForwardClock(lambda: self.wall, lambda: self.monotonic, self.boot_id)

    def passes(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.monotonic += milliseconds


def test_a_clock_that_is_left_alone_is_followed():
    clocks = Clocks()
    clock = clocks.forward()
    clocks.passes(70)
    assert clock.now_unix_ms() == 1_000_070


def test_a_step_back_is_not_followed_and_time_goes_on_at_the_pace_of_real_time():
    clocks = Clocks()
    clock = clocks.forward()
    clocks.wall -= 3_600_000
    assert clock.now_unix_ms() == 1_000_000
    clocks.passes(60_000)
    assert clock.now_unix_ms() == 1_060_000


def test_a_step_forward_is_followed_at_once_and_kept():
    clocks = Clocks()
    clock = clocks.forward()
    clocks.wall += 500
    assert clock.now_unix_ms() == 1_000_500
    clocks.wall -= 500
    clocks.passes(10)
    assert clock.now_unix_ms() == 1_000_510


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-100_000, 100_000)), max_size=30))
def test_between_two_looks_at_least_the_real_time_has_passed(moves: list[tuple[int, int]]):
    clocks = Clocks()
    clock = clocks.forward()
    before = clock.now_unix_ms()
    for passed, step in moves:
        clocks.passes(passed)
        clocks.wall += step
        now = clock.now_unix_ms()
        assert now >= before + passed
        assert now >= clocks.wall
        before = now


def test_the_process_clock_does_not_go_back():
    looks = [now_unix_ms() for _ in range(100)]
    assert looks == sorted(looks)


def test_a_restart_within_one_boot_loses_no_time_whatever_the_wall_clock_says():
    clocks = Clocks()
    mark = clocks.forward().mark()
    clocks.passes(5_000)  # nobody runs
    clocks.wall -= 3_600_000
    clock = clocks.forward()
    assert clock.resume(mark, mark.unix_ms)
    assert clock.now_unix_ms() == 1_005_000
    assert clock.behind_ms() == 3_600_000


def test_a_step_forward_before_the_restart_is_kept_by_the_mark():
    clocks = Clocks()
    running = clocks.forward()
    clocks.wall += 60_000
    mark = running.mark()
    clocks.wall -= 60_000
    clocks.passes(100)
    clock = clocks.forward()
    assert clock.resume(mark, mark.unix_ms)
    assert clock.now_unix_ms() == 1_060_100


@pytest.mark.parametrize("boot_id", ["boot-2", ""])
def test_a_clock_set_back_in_another_boot_is_not_sound_and_goes_on_from_the_mark(boot_id: str):
    clocks = Clocks()
    mark = clocks.forward().mark()
    clocks.boot_id, clocks.monotonic, clocks.wall = boot_id, 9, 1_000
    clock = clocks.forward()
    assert not clock.resume(mark, mark.unix_ms)
    clocks.passes(40)
    assert clock.now_unix_ms() == mark.unix_ms + 40


def test_a_time_since_boot_that_went_back_is_another_boot():
    clocks = Clocks()
    mark = clocks.forward().mark()
    clocks.monotonic -= 1
    clocks.wall -= 5
    assert not clocks.forward().resume(mark, mark.unix_ms)


def test_a_later_wall_clock_in_another_boot_is_believed():
    clocks = Clocks()
    mark = clocks.forward().mark()
    clocks.boot_id, clocks.monotonic, clocks.wall = "boot-2", 9, 2_000_000
    clock = clocks.forward()
    assert clock.resume(mark, mark.unix_ms)
    assert (clock.now_unix_ms(), clock.behind_ms()) == (2_000_000, 0)


def test_without_a_mark_only_the_highest_time_seen_counts():
    clocks = Clocks()
    assert clocks.forward().resume(None, 1_000_000)
    assert not clocks.forward().resume(None, 1_000_001)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10_000),
            st.integers(-100_000, 100_000),
            st.sampled_from(["look", "restart", "reboot"]),
        ),
        max_size=30,
    )
)
def test_over_restarts_time_runs_at_least_as_fast_as_real_time_or_says_that_it_cannot(
    moves: list[tuple[int, int, str]],
):
    """Invariant 11: what was to end by real time has ended, or the start says so."""
    clocks = Clocks()
    clock = clocks.forward()
    mark = clock.mark()
    for passed, step, what in moves:
        clocks.passes(passed)
        clocks.wall += step
        sound = True
        if what != "look":
            if what == "reboot":
                clocks.boot_id, clocks.monotonic = clocks.boot_id + "+", 0
            clock = clocks.forward()
            sound = clock.resume(mark, mark.unix_ms)
        now = clock.mark()
        assert now.unix_ms >= mark.unix_ms
        if what != "reboot":
            assert sound
            assert now.unix_ms >= mark.unix_ms + passed
        else:
            assert sound == (clocks.wall >= mark.unix_ms)
        mark = now


def test_a_plain_function_of_the_time_is_a_new_boot_at_every_start():
    clock = timekeeper(lambda: 5_000)
    assert clock.resume(ClockMark("", 0, 4_000), 5_000)
    assert not clock.resume(ClockMark("", 0, 4_000), 5_001)
    assert clock.now_unix_ms() == 5_001
    assert timekeeper(process_clock) is process_clock
