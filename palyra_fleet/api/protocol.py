"""One connection: aiohttp's, but with our words for what is not even a request.

aiohttp answers bytes it cannot parse with a text that repeats them, and logs them: both could hold
a token. Here such bytes get the same problem answer as any other mistake and no log line; a fault
below the application gets a 500 and a log line with its type only.
"""

import asyncio
import logging
from typing import Final

from aiohttp import web

from palyra_fleet.api.problems import ApiReason, ApiRefusal, problem_of_api

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "palyra-fleet",
}
_MAX_LINE_BYTES: Final = 4096
_MAX_HEADER_BYTES: Final = 8190
_log = logging.getLogger(__name__)


class FleetConnection(web.RequestHandler):
    """A connection of either listener."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; the connection is closed instead")
        reason = ApiReason.REQUEST_INVALID if status < 500 else ApiReason.INTERNAL
        if reason is ApiReason.INTERNAL:
            _log.error("a request failed below the application: %s", type(exc).__name__)
        response = problem_of_api(ApiRefusal(reason))
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response


def connection_of(runner: web.AppRunner) -> FleetConnection:
    """A new connection for the application of a runner that is set up."""
    server = runner.server
    if server is None:
        raise RuntimeError("the runner is not set up")
    return FleetConnection(
        server,
        loop=asyncio.get_running_loop(),
        access_log=None,  # type: ignore[arg-type]  # no access log: aiohttp takes None
        max_line_size=_MAX_LINE_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
        auto_decompress=False,
    )
