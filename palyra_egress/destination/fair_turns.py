"""Who may use a scarce thing next: nobody more than its share, and each asker in turn.

Used for threads that resolve names: one whose names resolve slowly fills its own share, waits in
its own queue, and takes nobody else's turn. A turn is given back when the work is really over, not
when somebody has stopped waiting for it. Of the event loop's thread.
"""

import asyncio
from collections import Counter, OrderedDict, deque


class TooManyWaiting(Exception):
    """This asker has as many waiting as it may."""


class FairTurns:
    """`in_all` turns at once, `per_asker` of one, and `waiting_per_asker` in its queue."""

    def __init__(self, in_all: int, per_asker: int, waiting_per_asker: int) -> None:
        self._in_all = in_all
        self._per_asker = per_asker
        self._waiting_per_asker = waiting_per_asker
        self._running: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def running(self) -> int:
        return self._running.total()

    async def take(self, asker: str) -> None:
        """Wait for a turn. Raises TooManyWaiting at once where the queue is full."""
        queue = self._waiting.setdefault(asker, deque())
        if len(queue) >= self._waiting_per_asker:
            raise TooManyWaiting
        mine = asyncio.get_running_loop().create_future()
        queue.append(mine)
        self._grant()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it came in the moment of giving up
                self.give_back(asker)
            else:
                self._forget(asker, mine)
            raise

    def give_back(self, asker: str) -> None:
        """A turn is over."""
        self._running[asker] -= 1
        if self._running[asker] <= 0:
            del self._running[asker]
        self._grant()

    def _grant(self) -> None:
        """Give every free turn to the next asker that waits and has some of its share left."""
        while self.running < self._in_all:
            asker = next((a for a in self._waiting if self._running[a] < self._per_asker), None)
            if asker is None:
                return
            queue = self._waiting.pop(asker)
            granted = queue.popleft()
            if queue:
                self._waiting[asker] = queue  # behind all others
            if not granted.done():
                self._running[asker] += 1
                granted.set_result(None)

    def _forget(self, asker: str, waiter: asyncio.Future[None]) -> None:
        queue = self._waiting.get(asker)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[asker]
