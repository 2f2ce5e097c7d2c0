"""Path patterns that cover observed paths, as narrow as can be read by a person.

Input: the comparable forms of paths that were asked for. Output: patterns for the policy language,
in order. Paths stay exact until at least `MANY` of them differ in one segment only; that segment
then becomes `*`. `**` is never suggested, and neither is a path that no pattern can write exactly.
"""

from collections.abc import Iterable
from typing import Final

from palyra_egress.policy.paths import PathRefused, parse_path_pattern

MANY: Final = 5
"""How many different values a segment must have had before it becomes `*`."""

type Segments = tuple[str, ...]


def can_be_written(form: str) -> bool:
    """True if a pattern can name exactly this path and nothing else."""
    try:
        return parse_path_pattern(form).exact == form
    except PathRefused:
        return False


def _masks(paths: Iterable[Segments]) -> dict[tuple[int, Segments], set[Segments]]:
    """Paths that are the same but for one segment, by where it stands and what is around it."""
    groups: dict[tuple[int, Segments], set[Segments]] = {}
    for path in paths:
        for position, segment in enumerate(path):
            if segment not in ("", "*"):
                masked = (*path[:position], "*", *path[position + 1 :])
                groups.setdefault((position, masked), set()).add(path)
    return groups


def group_paths(forms: Iterable[str]) -> list[str]:
    """The fewest patterns by this rule; each form is matched by one of them."""
    paths: set[Segments] = {tuple(form[1:].split("/")) for form in forms}
    while True:
        groups = _masks(paths)
        if not groups:
            break
        (position, masked), members = max(
            groups.items(), key=lambda item: (len(item[1]), item[0][0], item[0][1])
        )
        del position
        if len(members) < MANY:
            break
        paths = (paths - members) | {masked}
    return sorted("/" + "/".join(path) for path in paths)
