"""A fleet that only streams a view: one snapshot, then a tick every 100 ms, on a Unix socket.

For tests of proxies that run as processes of their own, where the test cannot apply messages.
Evidence is taken and kept in `evidence`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.models import ViolationAnswer
from palyra_fleet.wire.view_models import Binding, ViewMessage

TICK_EVERY_S = 0.1


@dataclass
class ViewServer:
    """What the proxy is told, and what it handed in."""

    bindings: tuple[Binding, ...]
    evidence: list[DsseEnvelope] = field(default_factory=list)

    async def view(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        snapshot = ViewMessage(
            kind="snapshot", epoch=1, seq=1, bindings=self.bindings, highest_fence=1
        )
        tick = ViewMessage(kind="tick", epoch=1, seq=1, highest_fence=1)
        with contextlib.suppress(ConnectionError):
            await response.write(snapshot.model_dump_json().encode() + b"\n")
            while True:
                await asyncio.sleep(TICK_EVERY_S)
                await response.write(tick.model_dump_json().encode() + b"\n")
        return response

    async def violation(self, request: web.Request) -> web.Response:
        self.evidence.append(DsseEnvelope.model_validate_json(await request.read()))
        answer = ViolationAnswer(
            accepted_seq=len(self.evidence), outcome="quarantined", duplicate=False
        )
        return web.Response(text=answer.model_dump_json(), content_type="application/json")


@asynccontextmanager
async def view_server(
    socket_path: Path, bindings: tuple[Binding, ...]
) -> AsyncIterator[ViewServer]:
    """Serve until the block ends."""
    server = ViewServer(bindings)
    application = web.Application()
    application.router.add_get("/v1/proxy/view", server.view)
    application.router.add_post("/v1/proxy/violations", server.violation)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(socket_path)).start()
        yield server
    finally:
        await runner.cleanup()
