"""How many new connections one pass of the loop takes, and how many may wait for it.

asyncio accepts as many connections in one pass as its backlog has, each of which costs about a
millisecond to set up: whoever connects in a storm decides how long a pass is, before anybody knows
whose connections they are. A pass takes a few; the others wait in the kernel (`listen(2)`). Those
that were reset while they waited cost next to nothing.
"""

import asyncio
import os
import socket
from typing import Final

ACCEPTED_AT_ONCE: Final = 8
BACKLOG: Final = 1024
_TCP_CLOSE: Final = 7
"""The first byte of `tcp_info` of a connection that is over (`tcp(7)`, `netinet/tcp.h`)."""


def with_long_queue(server: asyncio.Server) -> asyncio.Server:
    """A server that was started with `backlog=ACCEPTED_AT_ONCE`, whose sockets let `BACKLOG`
    connections wait: to listen again changes how many may."""
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(BACKLOG)
    return server


def is_gone(accepted: socket.socket) -> bool:
    """Whether a TCP connection was reset before anybody looked at it."""
    return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
