"""A server that records every byte and every connection it gets, and answers what a test says.

Tests of the proxy assert on what really arrived here: `received` (all bytes after TLS) and
`connections` (how many were accepted, before any TLS).
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

type Responder = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RecordingUpstream:
    """One listening server. `respond` is called with each complete request head, or, where the
    server `reads_bodies`, once the body has come too: behind an earlier answer nothing more of an
    HTTP/1 worker's upload arrives."""

    port: int = 0
    answer: bytes = OK
    respond: Responder | None = None
    reads_bodies: bool = False
    received: bytearray = field(default_factory=bytearray)
    connections: int = 0
    open_now: int = 0
    bytes_since_mark: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        try:
            await self._serve(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_now -= 1
            self.closed.set()
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pending = b""
        while data := await reader.read(65536):
            self.received += data
            self.bytes_since_mark += len(data)
            self.arrived.set()
            pending += data
            while b"\r\n\r\n" in pending:
                head, _, behind = pending.partition(b"\r\n\r\n")
                body_length = _body_length(head, behind) if self.reads_bodies else 0
                if body_length is None:
                    break
                pending = behind[body_length:]
                if self.respond is not None:
                    await self.respond(head, writer)
                else:
                    writer.write(self.answer)
                    await writer.drain()

    async def wait_until_closed(self) -> None:
        """Wait until no connection that was served is open any more."""
        async with asyncio.timeout(60):
            while self.open_now:
                self.closed.clear()
                await self.closed.wait()

    @property
    def heads(self) -> list[bytes]:
        """Every request line that arrived."""
        return [
            line
            for line in bytes(self.received).split(b"\r\n")
            if line.endswith((b" HTTP/1.1", b" HTTP/1.0"))
        ]


def _body_length(head: bytes, behind: bytes) -> int | None:
    """How many bytes the body is, with its chunks; None while it has not come whole."""
    if b"transfer-encoding: chunked" in head.lower():
        before, last_chunk, _ = behind.partition(b"0\r\n\r\n")
        return len(before + last_chunk) if last_chunk else None
    declared = re.search(rb"content-length: (\d+)", head.lower())
    length = int(declared[1]) if declared else 0
    return length if len(behind) >= length else None


class _CountingServer:
    """Counts accepted sockets before TLS, so that a TLS ClientHello alone is seen too."""

    def __init__(self, upstream: RecordingUpstream, context: ssl.SSLContext | None) -> None:
        self._upstream = upstream
        self._context = context

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream.connections += 1
        if self._context is not None:
            try:
                await writer.start_tls(self._context)
            except (ConnectionError, ssl.SSLError):
                writer.close()
                return
        await self._upstream.serve(reader, writer)


@asynccontextmanager
async def recording_upstream(
    context: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[RecordingUpstream]:
    """Start a recording server on a free port of `host`."""
    upstream = RecordingUpstream()
    server = await asyncio.start_server(_CountingServer(upstream, context).accept, host, port)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
