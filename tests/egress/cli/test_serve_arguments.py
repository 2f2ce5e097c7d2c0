"""The flags of what serves: how long a server may take to answer."""

import pytest

from palyra_egress.cli.parser import make_parser
from palyra_egress.proxy.bounds.deadlines import DEADLINES


def answer_within(*flags: str) -> float:
    return make_parser().parse_args(["up", *flags]).answer_within


def test_a_long_poll_is_given_the_time_it_is_set_to() -> None:
    assert answer_within() == DEADLINES.answer_s
    assert answer_within("--answer-within", "900") == 900.0


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "43201", "inf", "never"])
def test_what_is_no_time_to_wait_is_told(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        answer_within(f"--answer-within={text}")
    assert "expected whole seconds from 1 to 43200" in capsys.readouterr().err
