"""Dialling exactly the pinned addresses: happy eyeballs among them, and the peer checked after.

No name reaches the socket layer here, only judged addresses, so nothing can be resolved a second
time. Raises `DialRefused` with the reason when none of them answers in time. Source: RFC 8305
through the aiohappyeyeballs library.
"""

import asyncio
import ipaddress
import socket

import aiohappyeyeballs

from palyra_egress.proxy.sockets.last_words import Stream, listening_stream
from palyra_egress.reasons import Reason

DIAL_DEADLINE_S = 10.0
ATTEMPT_DELAY_S = 0.25
READ_BUFFER_BYTES = 1 << 17


class DialRefused(Exception):
    """No pinned address could be reached, or the peer is not one of them."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


async def dial_pinned(
    pinned: tuple[str, ...],
    port: int,
    deadline_s: float = DIAL_DEADLINE_S,
    own_ports: frozenset[int] = frozenset(),
    *,
    reads_last_words: bool = False,
) -> Stream:
    """A stream to one of the pinned addresses. `own_ports` are open to us on every address of this
    machine: a peer that has our own address there is ourselves, and is never a target. Where it
    `reads_last_words`, a reset is an end like any other, behind all that was sent before it."""
    try:
        async with asyncio.timeout(deadline_s):
            connected = await aiohappyeyeballs.start_connection(
                [_address_info(address, port) for address in pinned],
                happy_eyeballs_delay=ATTEMPT_DELAY_S,
            )
    except (OSError, TimeoutError) as error:
        raise DialRefused(Reason.UPSTREAM_UNREACHABLE) from error
    try:
        peer = ipaddress.ip_address(connected.getpeername()[0])
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:  # reset already: who it was cannot be checked any more
        connected.close()
        raise DialRefused(Reason.UPSTREAM_UNREACHABLE) from error
    if peer not in {ipaddress.ip_address(address) for address in pinned}:
        connected.close()
        raise DialRefused(Reason.NOT_PINNED)
    if port in own_ports and peer == ipaddress.ip_address(connected.getsockname()[0]):
        connected.close()
        raise DialRefused(Reason.PROXY_TARGET)
    if reads_last_words:
        return await listening_stream(connected, READ_BUFFER_BYTES)
    return await asyncio.open_connection(sock=connected, limit=READ_BUFFER_BYTES)


def _address_info(
    address: str, port: int
) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    if ipaddress.ip_address(address).version == 6:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)
