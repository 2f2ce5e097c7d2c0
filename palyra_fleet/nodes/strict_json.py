"""JSON from a node or a caller, read so that whatever is done with it later can be done.

Beyond the grammar of RFC 8259 it must be UTF-8, its strings Unicode text (no half of a surrogate
pair, section 8.2), its numbers finite, and its nesting at most `MAX_DEPTH`: what is not could not
be written to the state, nor told to an operator. Pure.
"""

import json
from typing import Final

MAX_DEPTH: Final = 64


def strict_json(content: bytes) -> object:
    """The value. Raises ValueError."""
    try:
        value: object = json.loads(content.decode(), parse_constant=_no_number)
        # the writer refuses what the reader let through: 1e999, and halves of pairs
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not _is_shallow(value):
        raise ValueError("nested too deeply")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _is_shallow(value: object) -> bool:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [inner for one in layer for inner in _inside(one)]
        if not layer:
            return True
    return False


def _inside(value: object) -> list[object]:
    match value:
        case dict():
            return list(value.values())
        case list():
            return value
        case _:
            return []
