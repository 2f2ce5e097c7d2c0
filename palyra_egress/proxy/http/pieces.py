"""Hands on what was read of one side in pieces, so that everybody has a turn in between.

One read may be thousands of the smallest frames, and each costs the proxy time. mitmproxy takes all
of a read in one step of the loop, in which nobody else is served.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from mitmproxy.proxy import events

MAX_PIECE_BYTES: Final = 8 * 1024
FRAMES_WEIGHT: Final = 8  # what a byte of frames may cost, in bytes of a body


async def in_pieces(
    event: events.DataReceived,
    take: Callable[[events.DataReceived], Awaitable[None]],
    has_share: Callable[[int], Awaitable[bool]],
) -> None:
    """Let `take` have the bytes of an event, each piece once the connection has a share for it;
    False ends it."""
    for at in range(0, len(event.data), MAX_PIECE_BYTES):
        piece = event.data[at : at + MAX_PIECE_BYTES]
        if not await has_share(len(piece) * FRAMES_WEIGHT):
            return
        await take(events.DataReceived(event.connection, piece))
