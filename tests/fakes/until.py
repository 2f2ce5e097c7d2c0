"""The one place that polls: waits for a fact of which nothing tells."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_POLL_S = 0.01


async def until[T](
    what: str, look: Callable[[], T | Awaitable[T | None] | None], within_s: float = 60.0
) -> T:
    """The first true value that `look` gives. Fails the test when there is none in time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + within_s
    while True:
        seen = look()
        found: T | None = await seen if inspect.isawaitable(seen) else seen
        if found:
            return found
        assert loop.time() < end_s, f"not within {within_s:g} s: {what}; last seen: {found!r}"
        await asyncio.sleep(_POLL_S)
