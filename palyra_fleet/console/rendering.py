"""Pages from templates, and the files they use. Everything a page shows is escaped; nothing comes
from elsewhere, and nothing inline runs (Content-Security-Policy)."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from palyra_fleet.console import words
from palyra_fleet.console.gate import ConsoleCall
from palyra_fleet.wire.principal_models import Role

PAGE_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_TYPES: Final[Mapping[str, str]] = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("palyra_fleet.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(
    tone=words.tone_of,
    event_tone=words.tone_of_event,
    event_word=words.event_word,
    state_word=words.state_word,
    iso=words.iso,
    clock=words.clock_time,
    duration=words.duration,
    size=words.size,
    short=words.short,
)


def render(
    call: ConsoleCall, template: str, *, status: int = 200, **context: object
) -> web.Response:
    """One page for who is signed in."""
    session = call.session
    common = {
        "who": None if session is None else session.principal.name,
        "csrf_token": "" if session is None else session.csrf_token,
        "may": {role.value: call.may(role) for role in Role},
        "here": call.request.path,
        "now": call.desk.clock(),
        "version": _version(),
        "serves_nodes": call.desk.operations is not None,
    }
    text = _ENVIRONMENT.get_template(template).render(common | context)
    response = web.Response(status=status, text=text, content_type="text/html")
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    response.headers["Referrer-Policy"] = "same-origin"
    return response


async def static_file(call: ConsoleCall) -> web.StreamResponse:
    """A file that pages use. Its address names its content, so it may be kept."""
    name = call.part("name")
    if name not in _TYPES:
        raise web.HTTPNotFound
    response = web.Response(body=_content(name), content_type=_TYPES[name], charset="utf-8")
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response


@cache
def _content(name: str) -> bytes:
    return (files("palyra_fleet.console") / "static" / name).read_bytes()


@cache
def _version() -> str:
    """Changes with any of the files."""
    digest = hashlib.sha256()
    for name in _TYPES:
        digest.update(_content(name))
    return digest.hexdigest()[:12]
