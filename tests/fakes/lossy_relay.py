"""A Unix socket in front of the fleet's own: it can lose one answer, and be gone for a while."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class LossyRelay:
    """`lose`: the answer to the next request whose head has this in it never comes; the fleet took
    the request, and the connection is cut when it answers. `lost` is set then."""

    fleet: Path
    path: Path
    lose: bytes | None = None
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _held: set[asyncio.StreamWriter] = field(default_factory=set)

    async def up(self) -> None:
        self._server = await asyncio.start_unix_server(self._relay, str(self.path))

    async def down(self) -> None:
        """Nobody listens any more, and every connection is cut."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.path.unlink(missing_ok=True)
        for held in self._held:
            held.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_fleet, to_fleet = await asyncio.open_unix_connection(str(self.fleet))
        ends = {writer, to_fleet}
        self._held |= ends
        cut = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(65_536):
                if self.lose is not None and self.lose in data:
                    self.lose = None
                    cut.set()
                to_fleet.write(data)
            to_fleet.close()

        async def answer() -> None:
            while data := await from_fleet.read(65_536):
                if cut.is_set():
                    self.lost.set()
                    break
                writer.write(data)
            writer.transport.abort()

        with contextlib.suppress(OSError):
            await asyncio.gather(ask(), answer())
        for end in ends:
            end.transport.abort()
        self._held -= ends


@asynccontextmanager
async def lossy_relay(fleet: Path, directory: Path) -> AsyncIterator[LossyRelay]:
    relay = LossyRelay(fleet, directory / "relay.sock")
    await relay.up()
    try:
        yield relay
    finally:
        await relay.down()
