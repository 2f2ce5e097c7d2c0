"""The OpenAPI 3.1 document of the console's JSON routes, made from the console's table. Pure.

Pages, files and the live stream are for browsers and stand in none. Callers hold a session's cookie
and, for a change, the token that signing in answered, in a header.
"""

import functools
import json
from collections.abc import Iterable
from importlib import metadata
from typing import Any, Final, cast

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.callers import Who
from palyra_fleet.api.openapi import document
from palyra_fleet.api.operator_calls import Handler
from palyra_fleet.api.routes import Row
from palyra_fleet.console.gate import COOKIE, CSRF_HEADER, PREFIX, ConsoleCall, ConsoleRow

type Json = dict[str, Any]

JSON_BELOW: Final = "/v1/"
_SCHEMES: Final[Json] = {
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    "csrf": {"type": "apiKey", "in": "header", "name": CSRF_HEADER},
}
_SIGNING_IN: Final = ("401", "403", "409", "429")


@answers.gives(answers.Gives(None, form={"type": "object", "required": ["openapi"]}))
async def describe(call: ConsoleCall) -> web.StreamResponse:
    """The document of this version."""
    return web.Response(body=call.desk.described, content_type="application/json")


def console_document(version: str, rows: Iterable[ConsoleRow]) -> Json:
    """The whole document, as JSON values."""
    ours = [row for row in rows if row.path.startswith(JSON_BELOW)]
    made = document(version, map(_as_row, ours))
    made["info"] |= {
        "title": "Palyra Fleet console",
        "description": "The JSON twins of the console's pages, under control-plane.v1. Sign in at "
        "/console/v1/auth/login; programs use the admin API instead.",
    }
    made["components"]["securitySchemes"] = _SCHEMES
    problem = {"$ref": "#/components/responses/problem"}
    for path in made["paths"].values():
        for method, operation in path.items():
            if "x-palyra-role" in operation:
                needed = ("session",) if method == "get" else ("session", "csrf")
                operation["security"] = [{name: [] for name in needed}]
            else:
                operation["responses"] |= dict.fromkeys(_SIGNING_IN, problem)
    return made


@functools.cache
def console_openapi_bytes(rows: tuple[ConsoleRow, ...]) -> bytes:
    """The document of this version, as it is served."""
    version = metadata.version("palyra-egress-fleet")
    return json.dumps(console_document(version, rows), indent=1).encode() + b"\n"


def _as_row(row: ConsoleRow) -> Row:
    """The row as the fleet's document describes rows."""
    return Row(
        row.method,
        f"{PREFIX}{row.path}",
        Who.STRANGER if row.role is None else row.role,
        cast(Handler, row.handler),
        row.body,
        row.query,
        draws=row.draws,
    )
