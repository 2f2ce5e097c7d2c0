"""A server that speaks HTTP/2, records each stream, and answers as a test says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import h2.events

from tests.fakes.h2_peer import DEADLINE_S, Peer, Stream

type Responder = Callable[["H2Session", Stream], Awaitable[None]]


async def answer_hello(session: "H2Session", stream: Stream) -> None:
    """The answer unless a test has another one: when the request is complete."""
    await session.until(lambda: stream.over)
    if stream.reset is None:
        session.head(stream.stream_id, [(":status", "200"), ("content-type", "text/plain")])
        await session.data(stream.stream_id, b"hello", end=True)


@dataclass
class H2Upstream:
    """One listening server, and all that reached it."""

    port: int = 0
    respond: Responder = answer_hello
    sessions: list["H2Session"] = field(default_factory=list)
    connections: int = 0
    keeps_bodies: bool = True
    credits: bool = True
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def streams(self) -> list[Stream]:
        return [stream for session in self.sessions for stream in session.streams.values()]

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self.connections += 1
        try:
            await writer.start_tls(context)
        except (OSError, ssl.SSLError):
            writer.close()
            return
        session = H2Session(self, reader, writer)
        self.sessions.append(session)
        session.h2.initiate_connection()
        session.flush()
        try:
            await session.read()
        finally:
            self.changed.set()
            session.stop()

    async def until(self, holds: Any) -> None:
        """Wait until something is true of what arrived here."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


class H2Session(Peer):
    """One connection of the proxy."""

    def __init__(
        self, upstream: H2Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(reader, writer, client_side=False)
        self.keeps_bodies, self.credits = upstream.keeps_bodies, upstream.credits
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        self._upstream.changed.set()
        if isinstance(event, h2.events.RequestReceived):
            stream = self.streams[event.stream_id]
            self._tasks.add(asyncio.get_running_loop().create_task(self._respond(stream)))

    async def _respond(self, stream: Stream) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            await self._upstream.respond(self, stream)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.close()


@asynccontextmanager
async def h2_upstream(
    context: ssl.SSLContext, protocols: tuple[str, ...] = ("h2",)
) -> AsyncIterator[H2Upstream]:
    """Start a server on a free port; it speaks HTTP/2 whatever was agreed."""
    context.set_alpn_protocols(list(protocols))
    upstream = H2Upstream()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.serve(reader, writer, context)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for session in upstream.sessions:
            session.stop()
