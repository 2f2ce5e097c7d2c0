"""Labels of workers: a key and a value, as operators give them to tell workers apart.

Key: a name of 1 to 63 letters, digits, `-`, `_` and `.`, that begins and ends with a letter or
digit; before it, if wanted, a DNS name and a slash. Value: such a name, or empty. Source:
Kubernetes, "Labels and Selectors", of which this is a part (a whole key has at most 128
characters). Pure.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from pydantic import Field, StringConstraints

_NAME: Final = "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_DNS: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
KEY_PATTERN: Final = f"({_DNS}/)?{_NAME}"
VALUE_PATTERN: Final = f"({_NAME})?"
WANTED_PATTERN: Final = f"{KEY_PATTERN}(={VALUE_PATTERN})?"
MAX_LABELS: Final = 32
"""So many a worker has at most."""
MAX_KEY: Final = 128
MAX_WANTED: Final = MAX_KEY + 1 + 63
_WANTED: Final = re.compile(WANTED_PATTERN)

LabelKey = Annotated[str, StringConstraints(max_length=MAX_KEY, pattern=f"^{KEY_PATTERN}$")]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=f"^{VALUE_PATTERN}$")]
LabelMap = Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)]

type Labels = tuple[tuple[str, str], ...]
"""Sorted by key, each key once."""
type WantedLabel = tuple[str, str | None]
"""A key, and the value it must have; None: any."""


def sorted_labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def written(labels: Iterable[tuple[str, str]]) -> str:
    """On one line: `rack=r1,zone=a`."""
    return ",".join(f"{key}={value}" for key, value in labels)


def wanted_label(text: str) -> WantedLabel:
    """`KEY` or `KEY=VALUE`. Raises ValueError."""
    key, says, value = text.partition("=")
    if len(key) > MAX_KEY or _WANTED.fullmatch(text) is None:
        raise ValueError("expected KEY or KEY=VALUE")
    return key, value if says else None
