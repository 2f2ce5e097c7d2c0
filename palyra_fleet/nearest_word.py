"""Which known word was probably meant by one that is not known. Pure; for messages only."""

import difflib
from collections.abc import Iterable
from typing import Final

_LOOKED_AT: Final = 64


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that was probably meant, if one is near enough: the same word written otherwise
    first, then one slip of the fingers."""
    given = word.lower()[:_LOOKED_AT]
    known = {choice.lower(): choice for choice in sorted(choices)}
    same = [choice for lower, choice in known.items() if _folded(lower) == _folded(given)]
    slips = [choice for lower, choice in known.items() if _is_one_slip(given, lower)]
    if same or slips:
        return min(same or slips)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    return known[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of a sentence that names the nearest choice; nothing where none is near."""
    meant = nearest(word, choices)
    return "" if meant is None else f"; did you mean {meant!r}?"


def _is_one_slip(word: str, choice: str) -> bool:
    """True if one letter too many, too few or wrong, or two neighbours swapped, are all of it."""
    start = 0
    while start < min(len(word), len(choice)) and word[start] == choice[start]:
        start += 1
    left, right = word[start:], choice[start:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    if len(left) <= 1 and len(right) <= 1:
        return left != right
    return len(left) == 2 and left == right[::-1]


def _folded(word: str) -> str:
    """The word without what people write otherwise: letters' case, hyphens, underscores."""
    return word.lower().replace("-", "").replace("_", "")
