"""What a policy says, without where and how it is written.

Input: a `PolicySpec` or any part of one. Output: nested tuples that are equal exactly when the two
parts mean the same to the judge, the linter and the people who read owners and reasons: no
positions, no file name, patterns as they are compared. `meaning_digest` is a SHA-256 over it.
"""

from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import sha256
from typing import Final

from palyra_egress.destination.hostpattern import HostPattern
from palyra_egress.policy.paths import PathPattern
from palyra_egress.policy.schema import PolicySpec
from palyra_fleet.strict_yaml.document import Position

_NO_MEANING: Final = frozenset(
    {"file", "files", "mode_position", "own_tls", "inspected_keys", "upstream_tls_places"}
)
"""Where things stand and how they are spelled; `carriage` says what `own_tls` comes to."""

type Meaning = tuple["Meaning", ...] | str | int | None


def meaning(value: object) -> Meaning:
    """The comparable form of one value of the model."""
    match value:
        case HostPattern():
            return (value.kind.value, value.name, meaning(value.addresses))
        case PathPattern():
            return tuple((segment.rank, segment.text) for segment in value.segments)
        case Enum():
            return str(value.value)
        case str() | int() | None:
            return value
        case frozenset():
            return tuple(sorted(str(item) for item in value))
        case tuple():
            return tuple(meaning(item) for item in value if not isinstance(item, Position))
        case _:
            pass
    if not is_dataclass(value):
        raise TypeError(f"no part of a policy: {type(value).__name__}")
    named = ((field.name, getattr(value, field.name)) for field in fields(value))
    return tuple(
        (name, meaning(item))
        for name, item in named
        if not isinstance(item, Position) and name not in _NO_MEANING
    )


def meaning_digest(spec: PolicySpec) -> str:
    return sha256(repr(meaning(spec)).encode()).hexdigest()
