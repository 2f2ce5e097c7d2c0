"""Deadlines as options of mitmproxy: what is set, and what is none."""

import pytest

from palyra_egress.proxy.bounds.deadline_options import (
    DEADLINE_OPTIONS,
    DeadlineRefused,
    deadlines_with,
)
from palyra_egress.proxy.bounds.deadlines import DEADLINES


def test_nothing_that_is_set_is_what_the_product_says() -> None:
    assert deadlines_with({}) == DEADLINES
    assert deadlines_with({option.name: "" for option in DEADLINE_OPTIONS}) == DEADLINES


@pytest.mark.parametrize("option", DEADLINE_OPTIONS, ids=lambda one: one.name)
def test_each_sets_its_own_deadline(option) -> None:
    made = deadlines_with({f"palyra_{option.name}": "77"}, "palyra_")
    changed = [
        name for name in DEADLINES.__slots__ if getattr(made, name) != getattr(DEADLINES, name)
    ]
    assert changed == [option.field]
    assert getattr(made, option.field) == 77


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "43201", "inf", "\u0661", "1 "])
def test_what_is_no_time_to_wait_is_told(text: str) -> None:
    with pytest.raises(DeadlineRefused) as told:
        deadlines_with({"palyra_silence": text}, "palyra_")
    expected = f"palyra_silence: {text!r}; expected whole seconds from 1 to 43200"
    assert str(told.value) == expected
