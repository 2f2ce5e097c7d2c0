"""A nonce is good once, close to now, and nobody fills another's window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.identity.refusals import NodeReason
from palyra_fleet.identity.replay import WINDOW_MS, ReplayWindow

NOW = 1_800_000_000_000


def test_a_nonce_is_good_once_per_scope() -> None:
    window = ReplayWindow()
    assert window.check("a", "n", NOW, NOW) is None
    again = window.check("a", "n", NOW, NOW)
    assert again is not None
    assert again.reason is NodeReason.REPLAY_SEEN
    assert window.check("b", "n", NOW, NOW) is None


@pytest.mark.parametrize("offset", [-WINDOW_MS, 0, WINDOW_MS])
def test_a_timestamp_inside_the_window_is_taken(offset: int) -> None:
    assert ReplayWindow().check("a", "n", NOW + offset, NOW) is None


@pytest.mark.parametrize("timestamp", [NOW - WINDOW_MS - 1, NOW + WINDOW_MS + 1, 0, -(2**63)])
def test_a_timestamp_outside_the_window_is_stale(timestamp: int) -> None:
    refusal = ReplayWindow().check("a", "n", timestamp, NOW)
    assert refusal is not None
    assert refusal.reason is NodeReason.REPLAY_STALE


def test_a_window_after_another_takes_nothing_that_the_other_may_have_taken() -> None:
    window = ReplayWindow(after_unix_ms=NOW)
    for timestamp in (NOW - 1, NOW):
        refusal = window.check("a", "n", timestamp, NOW + 1)
        assert refusal is not None
        assert refusal.reason is NodeReason.REPLAY_STALE
    assert window.check("a", "n", NOW + 1, NOW + 1) is None


@pytest.mark.parametrize("nonce", ["", "n" * 129])
def test_a_nonce_without_use_is_malformed(nonce: str) -> None:
    refusal = ReplayWindow().check("a", nonce, NOW, NOW)
    assert refusal is not None
    assert refusal.reason is NodeReason.REPLAY_MALFORMED


@given(
    offset=st.integers(-WINDOW_MS, WINDOW_MS),
    steps=st.lists(st.integers(-WINDOW_MS, WINDOW_MS), max_size=8),
)
def test_the_same_call_is_never_taken_twice_wherever_the_clock_goes(
    offset: int, steps: list[int]
) -> None:
    window, now = ReplayWindow(), NOW
    assert window.check("a", "n", NOW + offset, now) is None
    for step in steps:
        now += step
        assert window.check("a", "n", NOW + offset, now) is not None


def test_a_full_scope_refuses_and_spares_the_others() -> None:
    window = ReplayWindow(max_per_scope=2)
    for nonce in "ab":
        assert window.check("noisy", nonce, NOW, NOW) is None
    full = window.check("noisy", "c", NOW, NOW)
    assert full is not None
    assert full.reason is NodeReason.REPLAY_FULL
    assert window.check("calm", "c", NOW, NOW) is None
    later = NOW + 2 * WINDOW_MS + 1
    assert window.check("noisy", "c", later, later) is None


def test_memory_is_bounded_in_all() -> None:
    window = ReplayWindow(max_in_all=3)
    taken = [window.check(f"scope {n}", "n", NOW, NOW) is None for n in range(5)]
    assert taken == [True, True, True, False, False]


def test_scope_and_nonce_do_not_run_together() -> None:
    window = ReplayWindow()
    assert window.check("a", "1:b", NOW, NOW) is None
    assert window.check("a1", ":b", NOW, NOW) is None
