"""Mirror of policy/coverage.py: what is said about all paths holds for each of them."""

from itertools import product

import pytest

from palyra_egress.policy.coverage import path_covers, paths_overlap
from palyra_egress.policy.paths import parse_path_pattern

PATTERNS = ["/", "/a", "/a/", "/a/b", "/*", "/a/*", "/*/b", "/*/*", "/**", "/a/**", "/*/b/**"]
PATHS = [
    "/" + "/".join(segments)
    for depth in range(1, 5)
    for segments in product(["a", "b", ""], repeat=depth)
]
PAIRS = list(product(PATTERNS, PATTERNS))


def matched(text: str) -> set[str]:
    pattern = parse_path_pattern(text)
    return {path for path in PATHS if pattern.matches(path)}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_paths_overlap_exactly_where_some_path_is_matched_by_both(one: str, other: str) -> None:
    told = paths_overlap(parse_path_pattern(one), parse_path_pattern(other))

    assert told is bool(matched(one) & matched(other))
    assert paths_overlap(None, parse_path_pattern(one))


@pytest.mark.parametrize(("wide", "narrow"), PAIRS)
def test_a_pattern_that_covers_another_matches_all_that_it_matches(wide: str, narrow: str) -> None:
    if path_covers(parse_path_pattern(wide), parse_path_pattern(narrow)):
        assert matched(narrow) <= matched(wide)
