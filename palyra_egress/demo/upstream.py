"""The demo's upstream: a real HTTPS server on loopback, since there may be no internet.

`/simple/` answers at once; `/stream` sends a line every 50 ms for as long as it is read, so that a
cut connection can be seen from the worker's side.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

STREAM_EVERY_S = 0.05


@dataclass(slots=True)
class DemoUpstream:
    """What arrived, as `METHOD path`, and where the server listens."""

    port: int = 0
    requests: list[str] = field(default_factory=list)

    async def simple(self, request: web.Request) -> web.Response:
        self.requests.append(f"{request.method} {request.path}")
        return web.Response(text="a list of packages\n")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the proxy cut it
            while True:
                await response.write(b"still open\n")
                await asyncio.sleep(STREAM_EVERY_S)
        return response


@asynccontextmanager
async def demo_upstream(context: ssl.SSLContext) -> AsyncIterator[DemoUpstream]:
    """Serve on a free loopback port until the block ends."""
    upstream = DemoUpstream()
    application = web.Application()
    application.router.add_get("/simple/", upstream.simple)
    application.router.add_get("/stream", upstream.stream)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        upstream.port = int(runner.addresses[0][1])
        yield upstream
    finally:
        await runner.cleanup()
