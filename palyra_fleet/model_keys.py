"""Which keys a table of a file may have, by the models that read it. Pure; for messages only."""

from collections.abc import Iterator, Sequence
from typing import get_args

from pydantic import BaseModel


def keys_at(top: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys that the mapping at this path of a file may have, by the models that read it; those
    of the nearest mapping above where the path names an entry of a list or of a table."""
    model = top
    for part in path:
        held = model.model_fields.get(part) if isinstance(part, str) else None
        inside = () if held is None else _models_in(held.annotation)
        model = next(iter(inside), model)
    return sorted(model.model_fields)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
