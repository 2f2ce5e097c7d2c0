"""One connection: aiohttp's, but with our words for what is not even a request.

aiohttp answers bytes it cannot parse with a text that repeats them, and logs them: both could hold
a token. Here such bytes get the same problem answer as any other mistake and no log line; a fault
below the application gets a 500 and a log line with its type only.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web

from palyra_fleet.api.problems import ApiReason, ApiRefusal, problem_of_api
from palyra_fleet.nodes.peer import Peer

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "palyra-fleet",
}
_MAX_LINE_BYTES: Final = 4096
_MAX_HEADER_BYTES: Final = 8190
IDLE_WITHIN_S: Final = 30.0
"""How long a connection may be without a whole request head; longer than our clients keep one."""
MAX_ADMIN_CONNECTIONS: Final = 256
"""How many connections the admin listener has at once. Any local program may open them."""
MAX_SOCKET_CONNECTIONS: Final = 4096
"""How many the Unix socket has at once, if the process may have as many descriptors and more."""
_log = logging.getLogger(__name__)


class FleetConnection(web.RequestHandler):
    """A connection of any listener. `peer` is who is at the other end of mutual TLS."""

    __slots__ = ("_most", "peer", "waiting")

    def __init__(self, runner: web.AppRunner, most: int | None, peer: Peer | None = None) -> None:
        """Belongs to the listener of a runner that is set up, with at most `most` at once."""
        server = runner.server
        if server is None:
            raise RuntimeError("the runner is not set up")
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # no access log: aiohttp takes None
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            auto_decompress=False,
            keepalive_timeout=IDLE_WITHIN_S,
        )
        self._most = most
        self.peer = peer
        self.waiting: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make room first: who only holds connections loses the oldest, so that no local program
        can use up the process's descriptors or keep the operator out."""
        others = [] if self._manager is None else self._manager.connections
        if self._most is not None and len(others) >= self._most:
            ours = [one for one in others if isinstance(one, FleetConnection)]
            next((one for one in ours if one.asks_nothing), ours[0]).force_close()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Who only waits or streams ends at once; a change that was begun is finished."""
        waiting, self.waiting = self.waiting, None
        super().connection_lost(exc)
        if waiting is not None:
            waiting.cancel()

    @property
    def asks_nothing(self) -> bool:
        """No whole request has come that is not answered."""
        return not self._request_in_progress and not self._messages

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
        gone = isinstance(exc, ConnectionError)  # the caller went away: no fault of ours
        if reason is ApiReason.INTERNAL and not gone:
            _log.error("a request failed below the application: %s", type(exc).__name__)
        response = problem_of_api(ApiRefusal(reason))
        response.headers.update(SECURITY_HEADERS)
        response.force_close()
        return response


@contextmanager
def ends_with_connection(request: web.Request) -> Iterator[None]:
    """Within the block the task that calls is cancelled once who asked is gone, so that its place
    is free again. Only for what changes nothing."""
    connection = request.protocol
    if not isinstance(connection, FleetConnection):
        yield
        return
    connection.waiting = asyncio.current_task()
    try:
        yield
    finally:
        connection.waiting = None
