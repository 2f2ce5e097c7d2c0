"""The small fleets, explored: no sequence of commands breaks an invariant, and none is missing."""

import pytest

from tests.fleet.ledger.small_scope import Scope
from tests.fleet.ledger.transitions import COMMANDS

SECONDS = 3_600.0
"""No limit in the suite: the depth is, so that a slow machine looks at the same states."""


@pytest.mark.parametrize(("workers", "depth", "at_least"), [(1, 7, 6_000), (2, 5, 2_500)])
def test_no_sequence_of_commands_breaks_an_invariant(
    workers: int, depth: int, at_least: int
) -> None:
    scope = Scope(workers)
    scope.explore(depth, SECONDS)
    assert scope.problems == []
    assert scope.depth == depth
    assert scope.states > at_least


def test_every_command_is_explored_and_succeeds_somewhere() -> None:
    scope = Scope(1)
    scope.explore(7, SECONDS)
    assert scope.commands == COMMANDS
    assert {outcome for outcome in scope.outcomes if ":" not in outcome} == COMMANDS
