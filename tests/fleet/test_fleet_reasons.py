"""The reason table is total and its codes keep their form."""

import re

from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal


def test_every_reason_has_one_row_and_a_stable_form() -> None:
    for reason in FleetReason:
        assert re.fullmatch(r"[a-z]+\.[a-z0-9_]+", reason.value)
        assert reason.heading
        assert 400 <= reason.http_status < 600


def test_a_refusal_becomes_an_exception_with_the_same_reason_and_text() -> None:
    error = FleetRefusal.of(Refusal(FleetReason.CLOSED, "closed"))
    assert (error.reason, str(error)) == (FleetReason.CLOSED, "closed")
