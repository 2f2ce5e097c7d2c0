"""The flags of what serves: how long servers, workers and exchanges may take."""

import pytest

from palyra_egress.cli.deadline_arguments import deadlines_of
from palyra_egress.cli.parser import make_parser
from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines


def read(*flags: str) -> Deadlines:
    return deadlines_of(make_parser().parse_args(["up", *flags]))


def test_nothing_that_is_set_is_what_the_product_says() -> None:
    assert read() == DEADLINES


@pytest.mark.parametrize(
    ("flag", "field", "most"),
    [
        ("--answer-within", "answer_s", 43_200),
        ("--body-silence", "body_s", 43_200),
        ("--silence", "silence_s", 43_200),
        ("--exchange-within", "exchange_s", 604_800),
    ],
)
def test_a_deadline_is_what_it_is_set_to_and_no_other_is(flag: str, field: str, most: int) -> None:
    for seconds in (1, 900, most):
        changed = read(flag, str(seconds))
        assert getattr(changed, field) == seconds
        names = (name for name in Deadlines.__dataclass_fields__ if name != field)
        assert all(getattr(changed, name) == getattr(DEADLINES, name) for name in names)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "43201", "inf", "never"])
def test_what_is_no_time_to_wait_is_told(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(f"--answer-within={text}")
    assert "expected whole seconds from 1 to 43200" in capsys.readouterr().err


def test_nothing_takes_longer_than_a_week(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--exchange-within=604801")
    assert "expected whole seconds from 1 to 604800" in capsys.readouterr().err
