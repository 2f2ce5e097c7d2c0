"""Pages of lists: whole while things come and go, and no cursor leads anywhere else."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from palyra_fleet.api.paging import (
    MAX_ROWS,
    ListOf,
    cut,
    make_cursor,
    narrowed,
    read_cursor,
)
from palyra_fleet.api.problems import ApiRefusal

ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def key(item: str) -> str:
    return item


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60))), max_size=8),
    st.sets(st.integers(0, 60)),
    st.integers(1, 7),
)
def test_what_was_there_all_along_is_shown_once_whatever_comes_and_goes(
    changes: list[tuple[set[int], set[int]]], at_first: set[int], limit: int
) -> None:
    ids = [str(ULID.from_timestamp(n)) for n in range(61)]
    there, always, seen = set(at_first), set(at_first), []
    cursor, steps = None, iter(changes)
    while True:
        after = read_cursor(ListOf.WORKERS, cursor)
        left = sorted((ids[n] for n in there if after is None or ids[n] < after), reverse=True)
        page = cut(ListOf.WORKERS, tuple(left[: limit + 1]), key, limit)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == limit
        gone, come = next(steps, (set(), set()))
        there = (there - gone) | come
        always -= gone
    assert len(set(seen)) == len(seen)
    assert {ids[n] for n in always} <= set(seen)


@pytest.mark.parametrize("list_of", list(ListOf))
def test_a_cursor_is_read_by_its_own_list_only(list_of: ListOf) -> None:
    keys = {ListOf.VIOLATIONS: "a" * 64, ListOf.EVENTS: "17", ListOf.LEASES: "17"}
    keys[ListOf.CERTIFICATES] = f"{'1' * 15}-{'a' * 64}"
    cursor = make_cursor(list_of, keys.get(list_of, ID))
    assert read_cursor(list_of, cursor) == keys.get(list_of, ID)
    for other in set(ListOf) - {list_of}:
        with pytest.raises(ApiRefusal, match="cursor: expected"):
            read_cursor(other, cursor)


def written(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "=",
        "w:" + ID,
        written(f"w:{ID}") + "=",
        written(f"w:{ID}").rstrip("=") + "\n",
        written(f"w:{ID}' OR '1'='1").rstrip("="),
        written(f"w:{ID.lower()}").rstrip("="),
        written(f"w:\0{ID}").rstrip("="),
        written("w:" + "0" * 300).rstrip("="),
        "A" * 100_000,
        "\u0661",
        base64.urlsafe_b64encode(b"w:\xff\xfe").decode().rstrip("="),
    ],
)
def test_a_cursor_that_was_made_up_is_refused(cursor: str) -> None:
    with pytest.raises(ApiRefusal, match="cursor: expected"):
        read_cursor(ListOf.WORKERS, cursor)


def test_one_spelling_of_a_cursor_is_good_only() -> None:
    """Base 64 has unused bits at the end; with them set it is another text of the same key."""
    cursor = make_cursor(ListOf.EVENTS, "17")
    last = cursor[:-1] + chr(ord(cursor[-1]) + 1)
    with pytest.raises(ApiRefusal):
        read_cursor(ListOf.EVENTS, last)


@given(
    st.integers(0, 2 * MAX_ROWS + 3), st.sampled_from([1, 2, 7, 400, 5_000]), st.integers(1, 120)
)
def test_a_search_shows_all_that_fits_once_and_looks_at_a_bounded_number(
    there: int, one_in: int, limit: int
) -> None:
    seen: list[int] = []
    before, pages = there, 0
    while True:
        asked = tuple(reversed(range(max(0, before - MAX_ROWS - 1), before)))
        page = narrowed(ListOf.EVENTS, asked, str, lambda n: n % one_in == 0, limit)
        assert len(page.items) <= limit
        seen += page.items
        after = read_cursor(ListOf.EVENTS, page.next_cursor)
        pages += 1
        if after is None:
            break
        before = int(after)
    assert seen == [n for n in reversed(range(there)) if n % one_in == 0]
    assert pages <= len(seen) / limit + there / MAX_ROWS + 2
