"""The forms of a good answer: one model, a list of models, nothing, or a small status object.

Refusals are never made here: they are raised, and `problems` puts them into words. `gives` says at
each handler what it answers, for the OpenAPI document; a handler that does not say stops the start.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel

REQUEST_ID_HEADER: Final = "Palyra-Request-Id"
"""On every answer: the id of the request."""
SEQ_HEADER: Final = "Palyra-Seq"
"""On the answer to a change: how far it brought the event log."""


def model(answer: BaseModel, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=answer.model_dump_json().encode(),
        content_type="application/json",
    )


def nothing() -> web.Response:
    return web.Response(status=204)


def status_object(values: Mapping[str, object], status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(values, sort_keys=True).encode(),
        content_type="application/json",
    )


@dataclass(frozen=True, slots=True)
class Gives:
    """What a handler answers when all is well. `model` is None where there is no body, or where a
    body of `content_type` is described by `form`."""

    model: type[BaseModel] | None
    status: int = 200
    content_type: str = "application/json"
    form: Mapping[str, object] | None = None
    also: tuple[int, ...] = ()
    """Other statuses with the same body."""


NOTHING: Final = Gives(None, 204)
_GIVES: Final[dict[Callable[..., Any], Gives]] = {}


def gives[Handler: Callable[..., Any]](
    what: Gives | type[BaseModel],
) -> Callable[[Handler], Handler]:
    """Say what the handler below answers."""

    def note(handler: Handler) -> Handler:
        _GIVES[handler] = what if isinstance(what, Gives) else Gives(what)
        return handler

    return note


def what_gives(handler: Callable[..., Any]) -> Gives | None:
    """What the handler said it answers."""
    return _GIVES.get(handler)
