"""What a proxy tells about itself, over HTTP: health and metrics, and on its own socket the rest.

Two listeners with one table of routes: a Unix socket in the state directory (0600), which also
gives the live view, and, where it is asked for, an address for health checks and Prometheus.
Neither is a way out of anything, and the address is never a target. Nothing here changes the proxy.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aiohttp import web

from palyra_egress.proxy.signals.live_view import Json
from palyra_egress.proxy.signals.metrics import CONTENT_TYPE

GOOD: Final = "ok"
FAILED: Final = "failed"
SHUTDOWN_S: Final = 0.2

type Handler = Callable[[web.Request], Awaitable[web.Response]]


class Told(Protocol):
    """What there is to tell."""

    def problems(self) -> dict[str, str]:
        """Readiness, check by check: `ok` or what is wrong."""

    def metrics(self) -> bytes:
        """In Prometheus' text format."""

    def live(self) -> Json:
        """The live view."""


@dataclass(slots=True)
class AdminListeners:
    """Both listeners. `open` them, `close` them."""

    told: Told
    socket_path: Path
    address: tuple[str, int] | None = None
    _runners: list[web.AppRunner] | None = None

    async def open(self) -> tuple[str, int] | None:
        """Listen; the address for health and metrics, if there is one. Raises OSError."""
        self._runners = []
        local = await self._started({"/live": self._live, **self._health(self._readyz_in_full)})
        self.socket_path.unlink(missing_ok=True)
        await web.UnixSite(local, str(self.socket_path)).start()
        self.socket_path.chmod(0o600)
        if self.address is None:
            return None
        public = await self._started(self._health(self._readyz))
        await web.TCPSite(public, *self.address).start()
        taken = public.addresses[0]
        return str(taken[0]), int(taken[1])

    async def close(self) -> None:
        for runner in self._runners or ():
            await runner.cleanup()
        self._runners = None
        self.socket_path.unlink(missing_ok=True)

    def _health(self, ready: Handler) -> dict[str, Handler]:
        return {"/livez": self._livez, "/readyz": ready, "/metrics": self._metrics}

    async def _started(self, routes: dict[str, Handler]) -> web.AppRunner:
        application = web.Application(client_max_size=1024)
        for path, handler in routes.items():
            application.router.add_get(path, handler)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
        if self._runners is not None:
            self._runners.append(runner)
        await runner.setup()
        return runner

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": GOOD})

    async def _readyz(self, _request: web.Request) -> web.Response:
        """Which checks fail. What is wrong is told on the socket alone: it names files."""
        checks = self.told.problems()
        return _ready({name: GOOD if text == GOOD else FAILED for name, text in checks.items()})

    async def _readyz_in_full(self, _request: web.Request) -> web.Response:
        return _ready(self.told.problems())

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.told.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def _live(self, _request: web.Request) -> web.Response:
        return web.json_response(self.told.live())


def _ready(checks: dict[str, str]) -> web.Response:
    """200 only if every check says `ok`; no check at all is not ready."""
    good = bool(checks) and all(value == GOOD for value in checks.values())
    answer = {"status": GOOD if good else "not_ready", "checks": checks}
    return web.json_response(answer, status=200 if good else 503)
