"""Nesting that is too deep ends the reading: what comes after it costs nothing."""

import pytest

from palyra_fleet.strict_yaml.document import MAX_DEPTH, Fault, read_yaml

AHEAD = 1_500
"""More signs than the parser looks ahead for the end of a key."""


@pytest.mark.parametrize("opening", ["[", "{a: ", "[{a: "])
def test_nothing_is_read_beyond_the_first_opening_that_is_too_deep(opening: str) -> None:
    source = f"a: {opening * AHEAD}%".encode()
    found = read_yaml(source, max_bytes=len(source), what="a file")
    assert found.root is None
    assert [(one.fault, one.message) for one in found.mistakes] == [
        (Fault.SYNTAX, "nesting is too deep")
    ]


def test_as_deep_as_may_be_is_read() -> None:
    levels = MAX_DEPTH - 1  # the mapping of the file is the first
    source = f"a: {'[' * levels}{']' * levels}".encode()
    assert read_yaml(source, max_bytes=10_000, what="a file").mistakes == ()
