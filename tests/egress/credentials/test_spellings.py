"""How text is made comparable, and what is looked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.spellings import (
    MIN_SPELLING,
    folded,
    spellings,
    unescaped,
    without_cut_escape,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"AbC", b"abc"),
        (b"a-b_c", b"a+b/c"),
        (b" a\r\n\tb\0\\c", b"abc"),
        (b"\xc3\x84", b"\xc3\x84"),
    ],
)
def test_folding_drops_case_white_space_and_the_second_alphabet(text, expected):
    assert folded(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"%41%6a%6Ab", b"Ajjb"),
        (b"100%", b"100%"),
        (b"%4", b"%4"),
        (b"%zz%41", b"%zzA"),
        (b"%2541", b"%41"),  # one level
        (b"\\u0041\\u00e9", b"A\xc3\xa9"),
        (b"\\\\u0041", b"\\A"),  # whether the backslash is escaped plays no part
        (b"\\ud83d\\ude00", "\U0001f600".encode()),
        (b"\\ud800", b"\xef\xbf\xbd"),  # half a pair
        (b"\\x41\\x4a", b"AJ"),
        (b"a\\nb\\tc", b"a\nb\nc"),
        (b"nothing", b"nothing"),
    ],
)
def test_one_level_of_escapes_is_resolved(text, expected):
    assert unescaped(text) == expected


PERCENT = [b"%", b"4", b"1", b"%41", b"%25", b"z"]
BACKSLASH = [b"\\", b"\\u", b"4", b"00", b"\\u0041", b"n", b"\\n", b"z"]
HEX = [b"\\", b"\\x", b"4", b"1", b"\\x41", b"\\x4", b"t", b"z"]


@given(
    st.sampled_from([PERCENT, BACKSLASH, HEX]).flatmap(
        lambda kind: st.lists(st.sampled_from(kind), max_size=12)
    ),
    st.integers(0, 40),
)
def test_a_piece_is_resolved_as_in_the_whole_but_for_an_escape_at_the_cut(pieces, place):
    text = b"".join(pieces)
    first = without_cut_escape(text[:place])
    whole = folded(unescaped(text))
    assert whole == folded(unescaped(first)) + folded(unescaped(text[len(first) :]))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_folding_pieces_is_folding_the_whole(one, other):
    assert folded(one + other) == folded(one) + folded(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a%", b"a"),
        (b"a%4", b"a"),
        (b"a%41", b"a%41"),
        (b"a\\", b"a"),
        (b"a\\u004", b"a"),
        (b"a\\u0041", b"a\\u0041"),
        (b"a\\x4", b"a"),
        (b"a%z", b"a%z"),
    ],
)
def test_only_an_incomplete_escape_is_cut_off(text, expected):
    assert without_cut_escape(text) == expected


def test_what_is_looked_for_is_folded_long_enough_and_named():
    found = spellings(b"sk-live_0123456789")
    assert found[b"sk+live/0123456789"] == "clear"
    assert found[b"sk-live_0123456789".hex().encode()] == "hex"
    assert {"base64", "base64, twice encoded", "hex, twice encoded"} < set(found.values())
    for spelling in found:
        assert folded(spelling) == spelling
        assert len(spelling) >= MIN_SPELLING


def test_a_spelling_that_would_be_found_by_chance_is_left_out():
    assert b"abcd" not in spellings(b"a b c d ")


def test_a_space_may_be_a_plus():
    assert b"correct+horse" in spellings(b"correct horse")
