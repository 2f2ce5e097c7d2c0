"""Hears what a server said before it hung up, though a write to it found that out first.

A server may answer a request that it has not read whole, and close. A write to it then fails, and
asyncio drops the connection with everything that the kernel still holds of the answer. Here that is
read before, and the end comes behind it. Sources: RFC 9112 section 9.6; tcp(7): what was received
before a reset stays readable.
"""

import asyncio
import contextlib
import socket
from typing import Final

MAX_LAST_BYTES: Final = 256 * 1024

type Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LastWords(asyncio.StreamReaderProtocol):
    """A stream's protocol that reads to the end what a server sent. A reset is an end like any
    other: whoever reads a message knows whether it is whole."""

    def __init__(self, reader: asyncio.StreamReader, connected: socket.socket) -> None:
        super().__init__(reader)
        self._connected = connected

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ConnectionError):
            self._read_last()
            exc = None
        super().connection_lost(exc)

    def _read_last(self) -> None:
        """The socket is still open here, and waits for nothing."""
        left = MAX_LAST_BYTES
        with contextlib.suppress(OSError):
            while left > 0 and (data := self._connected.recv(left)):
                self.data_received(data)
                left -= len(data)


async def listening_stream(connected: socket.socket, limit: int) -> Stream:
    """A stream over a connected socket, as `asyncio.open_connection` makes one. `limit` bytes are
    read ahead."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit)
    protocol = LastWords(reader, connected)
    transport, _ = await loop.create_connection(lambda: protocol, sock=connected)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
