"""What each JSON twin of the console answers, for its OpenAPI document: envelopes under a contract.

`gives` says at each handler which fields its envelope holds; a handler of a JSON route that does
not say stops the making of the document.
"""

import functools
from collections.abc import Callable
from types import GenericAlias
from typing import Any, Literal

from pydantic import create_model

from palyra_fleet.api import answers
from palyra_fleet.wire.models import WireModel


class Contract(WireModel):
    """Which contract an answer is under."""

    contract_version: Literal["control-plane.v1"]


class PageInfo(WireModel):
    """Where in a list the page stands. `next_cursor` is None on the last page."""

    limit: int
    returned: int
    next_cursor: str | None
    has_more: bool


class Envelope(WireModel):
    """What every answer holds."""

    contract: Contract


def gives[Handler: Callable[..., Any]](
    name: str, status: int = 200, /, **fields: object
) -> Callable[[Handler], Handler]:
    """Say that the handler below answers an envelope of this name with these fields."""
    return answers.gives(answers.Gives(_model(name, tuple(fields.items())), status))


@functools.cache
def _model(name: str, fields: tuple[tuple[str, Any], ...]) -> type[Envelope]:
    """The same envelope is one model, whichever handlers answer it."""
    there: dict[str, Any] = {field: (annotation, ...) for field, annotation in fields}
    return create_model(f"{name}Envelope", __base__=Envelope, **there)


def gives_page[Handler: Callable[..., Any]](
    field: str, item: type[WireModel]
) -> Callable[[Handler], Handler]:
    """Say that the handler below answers a page of a list."""
    name = "".join(word.capitalize() for word in field.split("_"))
    return gives(f"{name}Page", 200, **{field: GenericAlias(tuple, (item, ...)), "page": PageInfo})
