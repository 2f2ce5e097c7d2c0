"""Hands on what was read of one side in pieces, so that everybody has a turn in between.

One read may be thousands of the smallest frames or chunks, and each costs the proxy time. mitmproxy
takes all of a read in one step of the loop, in which nobody else is served.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from mitmproxy.proxy import events

MAX_PIECE_BYTES: Final = 8 * 1024


async def in_pieces(
    event: events.DataReceived,
    take: Callable[[events.Event], Awaitable[None]],
    goes_on: Callable[[], bool],
) -> None:
    """Let `take` have the bytes of an event, while the connection `goes_on`."""
    for at in range(0, len(event.data), MAX_PIECE_BYTES):
        if at and not (await _others_had_a_turn() and goes_on()):
            return
        await take(events.DataReceived(event.connection, event.data[at : at + MAX_PIECE_BYTES]))


async def _others_had_a_turn() -> bool:
    """False if this task was ended meanwhile: it hears of that at its next wait, where it can end
    in order."""
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None:
            task.cancel("ended between two pieces")
        return False
    return True
