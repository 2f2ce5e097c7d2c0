"""What is said of a refusal sends people to where the cause can be seen."""

import pytest

from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.cli.trouble_words import trouble_of
from palyra_fleet.client import FleetProblem


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("capability.not_available", "node show"),
        ("node.replay_stale", "node show"),
        ("node.not_served", "serve --nodes"),
        ("pairing.already_decided", "node requests"),
        ("identity.authority_overlap", "ca show"),
        ("fleet.worker_quarantined", "worker show"),
    ],
)
def test_a_refusal_names_the_command_that_shows_more(reason: str, command: str) -> None:
    trouble = trouble_of(FleetProblem(409, reason, "no"))
    assert trouble.exit_code is ExitCode.NO
    assert reason in str(trouble)
    assert command in str(trouble)
