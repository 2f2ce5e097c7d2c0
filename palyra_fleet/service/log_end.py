"""Where the event log ends, and who waits for it to go on.

`seq` is the number of the last entry that is durable. It grows by what each durable decision wrote,
in the order of the decisions, so it is known without asking the store. Whoever waits is woken by
the next entry, and by `wake`, and looks for itself; nothing is queued for anybody.
"""

import asyncio
import contextlib


class LogEnd:
    """For one event loop."""

    def __init__(self, seq: int = 0) -> None:
        self.seq = seq
        self._news = asyncio.Event()

    def grown_by(self, entries: int) -> int:
        """Note that so many entries became durable; the number of the last."""
        self.seq += entries
        if entries:
            self.wake()
        return self.seq

    def read_again(self, seq: int) -> None:
        """What is durable was read again, after something was lost: it ends here."""
        self.seq = seq

    def wake(self) -> None:
        """Have everybody who waits look again, although there may be nothing new."""
        self._news.set()
        self._news = asyncio.Event()

    async def beyond(self, seq: int, within_s: float) -> None:
        """Return once the log goes beyond `seq`, once woken, or when the time is over."""
        if self.seq > seq:
            return
        news = self._news
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await news.wait()
