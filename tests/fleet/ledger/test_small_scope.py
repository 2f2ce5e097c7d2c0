"""The small fleets, explored: no sequence of commands breaks an invariant, and none is missing."""

import functools

import pytest

from tests.fleet.ledger.small_scope import Scope
from tests.fleet.ledger.transitions import COMMANDS

SECONDS = 3_600.0
"""No limit in the suite: the depth is, so that a slow machine looks at the same states."""

SCOPES = [(1, 7, False, 6_000), (2, 5, False, 2_500), (1, 5, True, 1_500), (2, 4, True, 1_000)]
"""Workers, depth, enrolments too, and how many states there are at least."""


@functools.cache
def _explored(workers: int, depth: int, trust: bool) -> Scope:
    scope = Scope(workers, trust)
    scope.explore(depth, SECONDS)
    return scope


@pytest.mark.parametrize(("workers", "depth", "trust", "at_least"), SCOPES)
def test_no_sequence_of_commands_breaks_an_invariant(
    workers: int, depth: int, trust: bool, at_least: int
) -> None:
    scope = _explored(workers, depth, trust)
    assert scope.problems == []
    assert scope.depth == depth
    assert scope.states > at_least


def test_every_command_is_explored_and_succeeds_somewhere() -> None:
    """A new command has to be a move of the small scope, or this fails."""
    done: set[str] = set()
    for workers, depth, trust, _ in SCOPES:
        done |= {one for one in _explored(workers, depth, trust).outcomes if ":" not in one}
    assert done == COMMANDS
