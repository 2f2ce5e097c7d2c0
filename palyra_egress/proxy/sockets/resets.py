"""Ends a connection so that nothing more of what waits in a buffer goes out."""

import asyncio
import contextlib
import socket
import struct
from typing import Final

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds
NOBODY: Final = asyncio.Protocol()  # hears of an end, and does nothing about it


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def reset_quietly(writer: asyncio.StreamWriter) -> asyncio.BaseProtocol | None:
    """Close with RST and wake nobody who reads or writes here: whoever ends them tells the protocol
    that is returned that its connection is lost. None where that was done already."""
    transport = writer.transport
    protocol = transport.get_protocol()
    if protocol is NOBODY:
        return None
    transport.set_protocol(NOBODY)
    reset(writer)
    return protocol
