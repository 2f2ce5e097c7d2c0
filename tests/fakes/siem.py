"""Receivers of exported events on loopback: a webhook and a syslog collector, with faults.

`Siem.answer` decides how a request is answered; what was taken (2xx) is in `taken`. `Collector`
reads octet-counted messages over TLS, or is told to stand still.
"""

import asyncio
import base64
import contextlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from aiohttp import web

from palyra_fleet.ledger.decision import EventReason, LedgerEvent
from palyra_fleet.store.event_chain import ChainHead, link_all
from palyra_fleet.wire.models import EventView

SECRET = bytes(range(32))
SECRET_LINE = "whsec_" + base64.b64encode(SECRET).decode()

type Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def accept(request: web.Request) -> web.StreamResponse:
    del request
    return web.Response(status=204)


def status(code: int, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(status=code, headers=headers)

    return answer


@dataclass
class Siem:
    """A webhook's receiver. It trusts nothing that is not signed with `SECRET`."""

    url: str = ""
    answer: Answer = accept
    asked: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    unsigned: int = 0
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def sequences(self) -> list[int]:
        return [document["event.sequence"] for document in self.taken]

    async def receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked += 1
        self.ids.append(request.headers["webhook-id"])
        if not is_signed(request.headers, body):
            self.unsigned += 1
            return web.Response(status=401)
        response = await self.answer(request)
        if 200 <= response.status < 300:
            self.taken += json.loads(body)["data"]
        async with self.came:
            self.came.notify_all()
        return response

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self.came:
            await self.came.wait_for(holds)


def is_signed(headers: Any, body: bytes) -> bool:
    """As a receiver checks it: any one of the signatures."""
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(SECRET, message, sha256).digest()).decode()
    return f"v1,{wanted}" in headers["webhook-signature"].split(" ")


@asynccontextmanager
async def siem(tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Siem]:
    made = Siem()
    application = web.Application(client_max_size=4 * 1024 * 1024)
    application.router.add_post("/events", made.receive)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    made.url = f"{scheme}://{host}:{runner.addresses[0][1]}/events"
    try:
        yield made
    finally:
        await runner.cleanup()


@dataclass
class Collector:
    """A syslog collector over TLS."""

    port: int = 0
    messages: list[str] = field(default_factory=list)
    connections: int = 0
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, ssl.SSLError):
            while True:
                await self.reads.wait()
                length = int((await reader.readuntil(b" ")).decode())
                self.messages.append((await reader.readexactly(length)).decode("ascii"))


@asynccontextmanager
async def collector(tls: ssl.SSLContext) -> AsyncIterator[Collector]:
    made = Collector()
    made.reads.set()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.transport.abort()


def write_secret(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines or (SECRET_LINE,)))
    path.chmod(0o600)
    return path


def entries(count: int, head: ChainHead | None = None, **detail: Any) -> tuple[EventView, ...]:
    """That many entries of a log, of which the third is a warning."""
    reasons = [EventReason.REGISTERED, EventReason.STARTED, EventReason.QUARANTINED_BY_EGRESS]
    events = [
        LedgerEvent(reasons[number % 3], "proxy:proxy-1", "W", "L", {"number": number, **detail})
        for number in range(count)
    ]
    return link_all(head or ChainHead(), events, 1_795_000_000_000)[0]
