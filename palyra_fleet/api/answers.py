"""The forms of a good answer: one model, a list of models, nothing, or a small status object.

Refusals are never made here: they are raised, and `problems` puts them into words.
"""

import json
from collections.abc import Mapping

from aiohttp import web
from pydantic import BaseModel


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
