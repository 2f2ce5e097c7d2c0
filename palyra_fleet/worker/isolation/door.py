"""The door of an isolated program: connections to its loopback are carried to the proxy.

The listening socket was made inside the program's namespace and handed out, so whoever accepts on
it stands outside. Every connection is relayed to the proxy's address and nowhere else; bytes are
carried as they are, both ways, with back-pressure, and the proxy asks for the lease's credentials
as it does of everybody. The number of connections is bounded; further ones wait unaccepted.
"""

import asyncio
import contextlib
import socket
from typing import Final

from palyra_fleet.tasks import spawn

MAX_CONNECTIONS: Final = 512
_CHUNK_BYTES: Final = 64 * 1024
_ACCEPT_AGAIN_AFTER_S: Final = 0.05


class Door:
    """Relays until it is closed. `address` is the proxy's, `host:port`, IPv6 in brackets."""

    def __init__(self, listening: socket.socket, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._listening = listening
        self._host, self._port = host.removeprefix("[").removesuffix("]"), int(port)
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._relays: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._accepting = spawn(self._accept(), "door of an isolated program")

    async def close(self) -> None:
        """End every relay and the door itself."""
        tasks = [self._accepting, *self._relays]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                inner, _ = await loop.sock_accept(self._listening)
            except OSError:  # out of file descriptors: the program waits, nobody else does
                self._room.release()
                await asyncio.sleep(_ACCEPT_AGAIN_AFTER_S)
                continue
            relay = spawn(self._relay(inner), "relay of an isolated program")
            self._relays.add(relay)
            relay.add_done_callback(self._relay_ended)

    def _relay_ended(self, relay: asyncio.Task[None]) -> None:
        self._relays.discard(relay)
        self._room.release()

    async def _relay(self, inner: socket.socket) -> None:
        async with contextlib.AsyncExitStack() as ends:
            inside = await asyncio.open_connection(sock=inner)
            ends.callback(inside[1].transport.abort)
            try:
                outside = await asyncio.open_connection(self._host, self._port)
            except OSError:
                return
            ends.callback(outside[1].transport.abort)
            with contextlib.suppress(OSError):
                async with asyncio.TaskGroup() as both:
                    both.create_task(_carry(inside[0], outside[1]))
                    both.create_task(_carry(outside[0], inside[1]))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything of one direction, then its end. A reset ends both directions."""
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    await writer.drain()
