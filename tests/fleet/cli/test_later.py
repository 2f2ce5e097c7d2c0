"""Commands that are loaded when they are called: each name in a grammar is a function there is."""

import argparse
import functools
from collections.abc import Iterator

import pytest

from palyra_egress.cli.parser import make_parser as egress_parser
from palyra_fleet.cli.later import LaterModule
from palyra_fleet.cli.parser import make_parser as fleet_parser


def handlers(parser: argparse.ArgumentParser) -> Iterator[object]:
    """Every function that a verb of this parser calls."""
    found = parser.get_default("run")
    if found is not None:
        yield from (found.func, *found.args) if isinstance(found, functools.partial) else (found,)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from handlers(one)


@pytest.mark.parametrize("make_parser", [fleet_parser, egress_parser])
def test_every_command_of_a_grammar_is_there(make_parser: object) -> None:
    assert callable(make_parser)
    resolved = 0
    for handler in handlers(make_parser()):
        resolve = getattr(handler, "resolve", None)
        if resolve is not None:
            assert callable(resolve()), handler
            resolved += 1
        else:
            assert callable(handler)
    assert resolved > 10


def test_a_name_that_is_not_there_is_told_when_it_is_called() -> None:
    later = LaterModule("palyra_fleet.cli.principal_commands")
    assert repr(later) == "LaterModule(palyra_fleet.cli.principal_commands)"
    with pytest.raises(AttributeError):
        later.no_such_command(None)
    with pytest.raises(AttributeError):
        getattr(later, "_private")  # noqa: B009 (a name that a test may not spell otherwise)
