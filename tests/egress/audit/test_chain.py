"""The hash chain: no line can be edited, dropped, swapped, doubled or added without breaking it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.audit.chain import (
    GENESIS_SHA256,
    ChainBroken,
    ChainHead,
    follow,
    link,
    walk,
)

VALUES = st.one_of(
    st.text(max_size=20), st.integers(), st.booleans(), st.none(), st.lists(st.text(max_size=5))
)
NAMES = st.text(max_size=10).filter(lambda name: name not in ("seq", "sha256", "previous_sha256"))
ENTRIES = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=8)


def chain(entries) -> list[bytes]:
    head, lines = ChainHead(), []
    for fields in entries:
        line, head = link(head, fields)
        lines.append(line)
    return lines


def verify_lines(lines: list[bytes], name: str) -> ChainHead:
    head = ChainHead()
    for step in walk(lines, name):
        head = step.head
    return head


def is_whole(lines: list[bytes]) -> bool:
    try:
        verify_lines(lines, "log")
    except ChainBroken:
        return False
    return True


@given(ENTRIES)
def test_a_chain_verifies_and_ends_where_it_was_left(entries):
    lines = chain(entries)
    head = verify_lines(lines, "log")
    assert head.seq == len(entries)
    assert json.loads(lines[-1])["sha256"] == head.sha256


@given(ENTRIES)
def test_what_was_entered_comes_back(entries):
    head = ChainHead()
    for fields, line in zip(entries, chain(entries), strict=True):
        entry, head = follow(head, line, "log")
        for name in ("seq", "previous_sha256"):
            entry.pop(name)
        assert entry == fields


@given(ENTRIES, st.data())
def test_any_changed_byte_breaks_it(entries, data):
    lines = chain(entries)
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[number]) - 1))
    old = lines[number][place]
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte != old))
    changed = lines[number][:place] + bytes([new]) + lines[number][place + 1 :]
    assert not is_whole([*lines[:number], changed, *lines[number + 1 :]])


@given(ENTRIES.filter(lambda entries: len(entries) > 1), st.data())
def test_a_dropped_line_breaks_it_unless_it_is_the_last(entries, data):
    lines = chain(entries)
    number = data.draw(st.integers(0, len(lines) - 2))
    assert not is_whole(lines[:number] + lines[number + 1 :])
    assert is_whole(lines[:-1])  # a cut end needs a head that is kept elsewhere


@given(ENTRIES.filter(lambda entries: len(entries) > 1), st.data())
def test_two_swapped_lines_break_it(entries, data):
    lines = chain(entries)
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    lines[first], lines[second] = lines[second], lines[first]
    assert not is_whole(lines)


@given(ENTRIES, st.data())
def test_a_line_twice_breaks_it(entries, data):
    lines = chain(entries)
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines)))
    assert not is_whole([*lines[:place], lines[number], *lines[place:]])


@given(ENTRIES, ENTRIES)
def test_the_end_of_another_chain_does_not_fit(entries, others):
    ours, theirs = chain(entries), chain(others)
    if ours[-1] == theirs[min(len(ours), len(theirs)) - 1]:
        return
    assert not is_whole(ours + theirs[len(ours) :]) or len(theirs) <= len(ours)


REWRITTEN = [
    (lambda line: line.replace(b",", b", "), "spaces"),
    (lambda line: line.replace(b'"a"', b'"\\u0061"'), "an escaped letter"),
    (lambda line: b" " + line, "a space first"),
    (lambda line: line.replace(b'"a":1', b'"a":1,"a":1'), "a name twice"),
    (lambda line: line.replace(b'"a":1', b'"a":1.0'), "another number"),
    (lambda line: line.replace(b"\n", b"\r\n"), "another line end"),
    (lambda line: line.removesuffix(b"\n"), "no line end"),
    (lambda line: b"[]\n", "no object"),
    (lambda line: b"\n", "nothing"),
    (lambda line: b"\xff\xfe\n", "no text"),
    (lambda line: b"[" * 100_000 + b"\n", "nesting without an end"),
    (lambda line: b'{"a":' + b"9" * 5_000 + b"}\n", "a number without an end"),
]


@pytest.mark.parametrize(("rewrite", "_how"), REWRITTEN, ids=[how for _, how in REWRITTEN])
def test_a_line_has_one_form(rewrite, _how):
    (line,) = chain([{"a": 1}])
    assert is_whole([line])
    assert not is_whole([rewrite(line)])


def test_the_first_line_names_64_zeros_and_number_one():
    (line,) = chain([{"a": 1}])
    entry = json.loads(line)
    assert (entry["seq"], entry["previous_sha256"]) == (1, GENESIS_SHA256)


def test_a_chain_that_starts_elsewhere_is_refused():
    line, _ = link(ChainHead(5, "1" * 64), {"a": 1})
    assert not is_whole([line])


def test_a_fault_is_told_with_its_line():
    lines = chain([{"a": 1}, {"a": 2}, {"a": 3}])
    with pytest.raises(ChainBroken, match=r"log:2: .*digest"):
        verify_lines([lines[0], lines[1].replace(b'"a":2', b'"a":9'), lines[2]], "log")
    with pytest.raises(ChainBroken, match=r"log:2: seq is 3; expected 2"):
        verify_lines([lines[0], lines[2]], "log")


def test_the_fields_of_the_chain_cannot_be_overruled():
    line, head = link(ChainHead(), {"seq": 7, "previous_sha256": "x", "a": 1})
    assert is_whole([line])
    assert head.seq == 1
