"""How a mistake in settings is told: the error, and the line of a key in a TOML file. Pure."""

import re
from collections.abc import Sequence
from typing import Final


class SettingsFileError(Exception):
    """The settings cannot be used; the text says file, line and key, and what was expected."""


_HEADER: Final = re.compile(r"\s*\[(\[)?\s*([A-Za-z0-9_.\- ]+?)\s*\]")
_ASSIGNMENT: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


def line_of(text: str, key: Sequence[str | int]) -> int:
    """The line of a key, or of the closest table around it. For messages only."""
    arrays: dict[tuple[str, ...], int] = {}
    table: tuple[str | int, ...] = ()
    best, depth = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        header, assignment = _HEADER.match(line), _ASSIGNMENT.match(line)
        if header:
            names = tuple(part.strip() for part in header[2].split("."))
            if header[1]:
                arrays[names] = arrays.get(names, -1) + 1
                table = (*names, arrays[names])
            else:
                table = names
            here: tuple[str | int, ...] = table
        elif assignment:
            here = (*table, assignment[1])
        else:
            continue
        if len(here) > depth and tuple(key[: len(here)]) == here:
            best, depth = number, len(here)
    return best
