"""How much of what was written to a stream its other end has not taken yet.

It is what waits in our buffer and what the kernel has sent, or will, without an acknowledgement.
Bytes. Source: tcp(7), SIOCOUTQ.
"""

import asyncio
import fcntl
import struct
import termios
from typing import Final

_AN_INT: Final = struct.Struct("i")


def untaken_bytes(writer: asyncio.StreamWriter) -> int:
    """None are left where the stream is closed."""
    sock = writer.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    (waits,) = _AN_INT.unpack(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(_AN_INT.size)))
    return writer.transport.get_write_buffer_size() + int(waits)
