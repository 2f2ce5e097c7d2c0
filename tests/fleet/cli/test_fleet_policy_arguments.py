"""What `palyra-fleet serve` is told about how much the fleet takes is what the fleet takes."""

from dataclasses import replace

import pytest

from palyra_fleet.cli.fleet_policy_arguments import AMOUNTS, fleet_policy_of
from palyra_fleet.cli.parser import make_parser
from palyra_fleet.ledger.policy import WorkerFleetPolicy


def policy_of(*flags: str) -> WorkerFleetPolicy:
    return fleet_policy_of(make_parser().parse_args(["serve", *flags]))


def test_without_a_word_the_policy_is_the_plain_one() -> None:
    assert policy_of() == WorkerFleetPolicy()


@pytest.mark.parametrize("field", AMOUNTS)
def test_an_amount_that_is_said_holds(field: str) -> None:
    flag = f"--{field.replace('_', '-')}"
    assert policy_of(flag, "7") == replace(WorkerFleetPolicy(), **{field: 7})


@pytest.mark.parametrize("field", AMOUNTS)
@pytest.mark.parametrize("amount", ["0", "-1", "many", "1.5", "99999999999"])
def test_an_amount_that_makes_no_sense_is_refused(
    field: str, amount: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        policy_of(f"--{field.replace('_', '-')}={amount}")
    assert "expected a number from 1 to" in capsys.readouterr().err
