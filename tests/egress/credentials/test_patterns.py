"""The matcher: what is found, under which name, and what could still begin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.patterns import (
    MAX_WATCHED_BYTES,
    Finding,
    PatternSet,
    Watched,
)
from palyra_egress.reasons import Reason


def canary(value: bytes, name: str = "decoy") -> Watched:
    return Watched(value, Reason.CANARY, name)


def test_a_finding_says_which_value_and_in_what_form():
    patterns = PatternSet([canary(b"AKIADECOY0000001"), canary(b"another-one-here", "second")])
    assert patterns.find(b"xx akiadecoy0000001") == Finding(Reason.CANARY, "decoy", "clear")
    assert patterns.find(b"another-one-here".hex().encode()) == Finding(
        Reason.CANARY, "second", "hex"
    )
    assert patterns.find(b"nothing of that") is None


def test_the_first_of_two_equal_values_gives_the_name():
    secret = Watched(b"AKIADECOY0000001", Reason.CREDENTIAL_LEAK, "vault:x")
    found = PatternSet([canary(b"AKIADECOY0000001"), secret]).find(b"akiadecoy0000001")
    assert found is not None and found.reason is Reason.CANARY


def test_an_empty_set_finds_nothing():
    patterns = PatternSet([])
    assert (len(patterns), patterns.longest) == (0, 0)
    assert patterns.find(b"anything") is None
    assert patterns.begins_at(b"anything") == 8


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (b"..akiadecoy000000", 2),
        (b"..akia", 2),
        (b"..a", 2),
        (b"..!", 3),
        (b"akiaakiadecoyaki", 13),
        (b"akiadecoy000000!", 16),
        (b"", 0),
    ],
)
def test_the_beginning_of_a_pattern_at_the_end_is_seen(text, begins):
    patterns = PatternSet([canary(b"AKIADECOY0000001")])
    assert patterns.begins_at(text) == begins


@given(st.binary(max_size=60).map(lambda text: text.translate(None, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")))
def test_what_begins_is_what_a_plain_search_says(text):
    patterns = PatternSet([canary(b"abababab-abababac"), canary(b"bbbbbbbbbbbb", "b")])
    slow = next(
        (
            start
            for start in range(max(0, len(text) - patterns.longest + 1), len(text))
            if any(one.startswith(text[start:]) for one in patterns._patterns)
        ),
        len(text),
    )
    assert patterns.begins_at(text) == slow


def test_of_a_very_long_secret_the_beginning_is_looked_for():
    long = b"".join(b"%08d" % number for number in range(1000))
    assert PatternSet([canary(long)]).find(long[:MAX_WATCHED_BYTES]) is not None


def test_no_representation_shows_a_value():
    watched = canary(b"AKIADECOY0000001")
    patterns = PatternSet([watched])
    told = f"{watched!r} {patterns!r} {patterns.find(b'akiadecoy0000001')!r}"
    assert "akiadecoy" not in told.lower()
