"""Summaries: short, recognisable, and without a secret."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.nodes.summaries import MAX_SUMMARY, payload_summary, text_summary

SECRET = "hunter2-and-more-of-it"


@pytest.mark.parametrize(
    ("payload", "summary"),
    [
        (b"", None),
        (b"null", "null"),
        (b"[1,2]", "a list of 2"),
        (
            b'{"url":"https://user:pw@a.example/x?token=1","n":5}',
            "{url: https://a.example/…, n: a number}",
        ),
        (b'{"a":{"b":{"c":1}}}', "{a: {b: an object of 1}}"),
        (b'{"password":"hunter2"}', "{password: 7 characters}"),
        (b"\xff", "1 bytes that are not JSON"),
        (json.dumps({SECRET + "abcdefgh": 1}).encode(), "{a name of 30: a number}"),
    ],
)
def test_a_payload_is_told_by_its_shape(payload: bytes, summary: str | None) -> None:
    assert payload_summary(payload) == summary


@given(st.text(min_size=8), st.text(min_size=8))
def test_no_string_of_a_payload_is_in_its_summary(value: str, other: str) -> None:
    marked = f"\x01{value}\x01"
    summary = payload_summary(json.dumps({"a": marked, "b": [other], "c": {"d": marked}}).encode())
    assert summary is not None
    assert marked not in summary


@pytest.mark.parametrize(
    "text",
    [
        f"token={SECRET}",
        f'{{"api_key": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"bearer {SECRET}",
        f"cannot open https://anna:{SECRET}@a.example/{SECRET}?q={SECRET}#{SECRET}",
        f"pin: {SECRET}",
        "key " + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=",
    ],
)
def test_an_error_text_loses_what_looks_like_a_credential(text: str) -> None:
    summary = text_summary(text)
    assert summary is not None
    assert SECRET not in summary
    assert "QUJDREVG" not in summary


def test_an_error_text_keeps_its_words() -> None:
    assert text_summary("no such file: notes.txt") == "no such file: notes.txt"
    assert text_summary("  \n ") is None


@given(st.text(max_size=2000))
def test_a_summary_is_short_and_prints_on_one_line(text: str) -> None:
    for summary in (text_summary(text), payload_summary(json.dumps({text: text}).encode())):
        if summary is not None:
            assert len(summary) <= MAX_SUMMARY
            assert not set(summary) & {"\n", "\r", "\x1b", "\u202e"}


def test_half_a_surrogate_pair_is_in_no_summary() -> None:
    """One in a record would be the end of the file that all records share."""
    for summary in (text_summary("a\ud800b"), payload_summary(b'"https://a\\ud800b/"')):
        assert summary is not None
        summary.encode()
