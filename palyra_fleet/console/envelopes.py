"""The JSON forms of the console's twins: an envelope under its contract, and pages of lists."""

import json
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from pydantic import BaseModel

CONTRACT: Final = {"contract_version": "control-plane.v1"}


def envelope(status: int = 200, /, **fields: object) -> web.Response:
    """An answer under the contract. Models become their JSON."""
    values = {name: _plain(value) for name, value in fields.items()}
    body = json.dumps({"contract": CONTRACT, **values}).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def page(name: str, items: Sequence[BaseModel], limit: int, *, has_more: bool) -> web.Response:
    """A list under the contract. There is no cursor yet: lists are cut at `limit`."""
    shown = {"limit": limit, "returned": len(items), "next_cursor": None, "has_more": has_more}
    return envelope(200, **{name: list(items), "page": shown})


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
