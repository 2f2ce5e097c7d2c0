"""A TCP server that says what a test tells it, and records every byte and end that it gets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class ScriptedServer:
    """`answer` is sent once `answer_after` bytes have come on a connection; then everything is only
    recorded. While `is_reading` is clear nothing is read."""

    port: int = 0
    answer: bytes = b""
    answer_after: int = 1
    connections: int = 0
    received: bytearray = field(default_factory=bytearray)
    is_reading: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    heard_the_end: asyncio.Event = field(default_factory=asyncio.Event)
    was_reset: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def writer(self) -> asyncio.StreamWriter:
        """The newest connection."""
        return self.writers[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            await self.is_reading.wait()
            here = 0
            while data := await reader.read(65536):
                before, here = here, here + len(data)
                self.received += data
                async with self.arrived:
                    self.arrived.notify_all()
                if before < self.answer_after <= here:
                    writer.write(self.answer)
            self.heard_the_end.set()
        except ConnectionError:
            self.was_reset.set()

    async def wait_for(self, data: bytes) -> None:
        """Wait until exactly these bytes have come."""
        async with asyncio.timeout(60), self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= len(data))
        assert bytes(self.received) == data


@asynccontextmanager
async def scripted_server(
    answer: bytes = b"", *, reads: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer(answer=answer)
    if reads:
        scripted.is_reading.set()
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=tls)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        scripted.is_reading.set()
        for writer in scripted.writers:
            writer.close()
        server.close()
