"""One spelling of a ULID."""

import pytest

from palyra_fleet.wire.ids import is_canonical_ulid

GOOD = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize("text", [GOOD, "7" + "Z" * 25, "0" * 26])
def test_a_canonical_ulid_is_one(text: str) -> None:
    assert is_canonical_ulid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.lower(),
        GOOD[:-1],
        GOOD + "0",
        "8" + GOOD[1:],  # more than 128 bits
        GOOD[:-1] + "I",  # not in Crockford's alphabet
        GOOD[:-1] + "L",
        GOOD[:-1] + "O",
        GOOD[:-1] + "U",
        GOOD + "\n",
        " " + GOOD[1:],
        "٠" + GOOD[1:],  # a digit, but not ASCII
    ],
)
def test_anything_else_is_not(text: str) -> None:
    assert not is_canonical_ulid(text)
