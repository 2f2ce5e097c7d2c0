"""Ends a connection so that nothing more of what waits in a buffer goes out.

`reset` ends one as its transport does: the other side hears of it a pass of the loop later, when
the socket is closed. `cut_off` is for many at once: the kernel forgets the connection before the
call returns, and what is left, the transport and its descriptor, is kept quiet and may be closed at
any later time.
Sources: connect(2) on AF_UNSPEC; RFC 9293 section 3.10.5 (ABORT); tcp_disconnect of Linux, which is
also what a close with SO_LINGER of zero seconds does.
"""

import asyncio
import contextlib
import ctypes
import socket
import struct
from typing import Final

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds
NOBODY: Final = asyncio.Protocol()  # hears of an end, and does nothing about it
NO_PEER: Final = struct.pack("=H14x", socket.AF_UNSPEC)
CONNECT: Final = ctypes.PyDLL(None).connect  # waits for nothing here, so it keeps the interpreter


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


def cut_off(writer: asyncio.StreamWriter) -> bool:
    """Send RST now, and throw away what the kernel holds of either direction. The descriptor stays
    open and its transport's, which is to be kept quiet before the loop looks at it again. False
    where the socket knows no such thing, as a Unix socket, and has to be reset."""
    sock = writer.get_extra_info("socket")
    return sock is not None and CONNECT(sock.fileno(), NO_PEER, len(NO_PEER)) == 0


def keep_quiet(writer: asyncio.StreamWriter) -> bool:
    """Wake nobody by the end of what was cut off, until it is closed. False where that cannot be
    had: under TLS, and while something waits to be written."""
    transport = writer.transport
    if transport.get_write_buffer_size() or writer.get_extra_info("ssl_object") is not None:
        return False
    if not isinstance(transport, asyncio.ReadTransport):
        return False
    transport.pause_reading()
    return True
