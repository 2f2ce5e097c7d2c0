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
        ("worker.quarantined", "worker show"),
        ("worker.unknown", "worker list"),
        ("worker.release_request_unknown", "worker requests"),
        ("worker.cleanup_verified_requires_reattestation", "start the worker again"),
        ("attestation.join_token_unknown", "join-token list"),
        ("grant.unknown", "grant list"),
        ("lease.grant_missing", "grant list"),
        ("lease.unknown", "lease list"),
        ("fleet.not_frozen", "freeze show"),
        ("fleet.already_frozen", "unfreeze all"),
        ("principal.unknown", "principal list"),
    ],
)
def test_a_refusal_names_the_command_that_shows_more(reason: str, command: str) -> None:
    trouble = trouble_of(FleetProblem(409, reason, "no"))
    assert trouble.exit_code is ExitCode.NO
    assert reason in str(trouble)
    assert command in str(trouble)
