"""The JSON forms of the console's twins: an envelope under its contract, and pages of lists."""

import json
from typing import Final

from aiohttp import web
from pydantic import BaseModel

from palyra_fleet.api.paging import Page

CONTRACT: Final = {"contract_version": "control-plane.v1"}


def envelope(status: int = 200, /, **fields: object) -> web.Response:
    """An answer under the contract. Models become their JSON."""
    values = {name: _plain(value) for name, value in fields.items()}
    body = json.dumps({"contract": CONTRACT, **values}).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def page[Item: BaseModel](name: str, found: Page[Item], limit: int) -> web.Response:
    """A page of a list under the contract."""
    shown = {
        "limit": limit,
        "returned": len(found.items),
        "next_cursor": found.next_cursor,
        "has_more": found.next_cursor is not None,
    }
    return envelope(200, **{name: list(found.items), "page": shown})


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
