"""Mirror of reasons.py: one row for every reason, and only guilt can be punished."""

import pytest

from palyra_egress.reasons import REASONS, Reason, ReasonClass, row

NOBODYS_FAULT = {ReasonClass.INFRA, ReasonClass.CLIENT, ReasonClass.ALLOWED}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_one_row_that_makes_sense(reason: Reason) -> None:
    found = row(reason)
    allowed = found.reason_class is ReasonClass.ALLOWED
    assert (found.http_status == 200) is allowed
    assert allowed or 400 <= found.http_status < 600
    assert found.title and reason.short == reason.value.split(".")[1]


def test_short_codes_are_unique() -> None:
    assert len({reason.short for reason in Reason}) == len(Reason) == len(REASONS)


def test_a_server_error_is_never_the_workers_guilt() -> None:
    for reason, found in REASONS.items():
        if found.http_status in (500, 503, 504):
            assert found.reason_class in NOBODYS_FAULT, reason
