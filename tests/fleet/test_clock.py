"""The clock: follows the wall clock forward at once, and never runs slower than real time."""

from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.clock import ForwardClock, now_unix_ms


class Clocks:
    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000_000, 50

    def forward(self) -> ForwardClock:
        return ForwardClock(lambda: self.wall, lambda: self.monotonic)

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
