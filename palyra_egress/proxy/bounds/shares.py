"""One worker's share of a pass of the loop: how much of what was read for it is handled in it.

The loop serves everything that is ready in one pass, and nobody else in between. Without a share a
worker with many connections, or with bytes that cost much, decides how long a pass is. What is read
for a worker, of either side of any of its connections, costs its bytes before it is handled, and at
least `LEAST_BYTES`; what then takes more than a share's time is charged for it. Who has had a share
waits, in order, and what it owes is taken off its next shares. One read is always let through, and
passes without work are short, so nothing is lost while nobody else has any. Those that have not
shown whose they are share by address.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

SHARE_BYTES: Final = 64 * 1024
SHARE_S: Final = 0.002  # of the processor
LEAST_BYTES: Final = SHARE_BYTES // 4  # a small read costs about as much as this much of a body


@dataclass(slots=True)
class _Share:
    """What one worker has had, and what of it waits: (cost, whom to tell)."""

    spent: int = 0
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)

    def has_room(self, cost: int) -> bool:
        return not self.spent or self.spent + cost <= SHARE_BYTES

    def begin_pass(self) -> None:
        """A new pass: those that waited longest go first."""
        self.spent = max(0, self.spent - SHARE_BYTES)
        while self.waiting:
            cost, turn = self.waiting[0]
            if turn.done():  # nobody waits any more
                self.waiting.popleft()
            elif self.has_room(cost):
                self.waiting.popleft()
                self.spent += cost
                turn.set_result(None)
            else:
                return


@dataclass(slots=True)
class Shares:
    """The shares of everybody who has had something lately, or waits."""

    _by_owner: dict[str, _Share] = field(default_factory=dict)
    _pass_begins: bool = False

    def __len__(self) -> int:
        return len(self._by_owner)

    async def take(self, owner: str, cost_bytes: int) -> None:
        """Wait until what was read for `owner` may be handled."""
        cost = max(cost_bytes, LEAST_BYTES)
        share = self._share_of(owner)
        if not share.waiting and share.has_room(cost):
            share.spent += cost
            return
        turn = asyncio.get_running_loop().create_future()
        share.waiting.append((cost, turn))
        await turn

    def charge(self, owner: str, took_s: float) -> None:
        """How much processor time it took to handle; only what is more than a whole share counts,
        since the rest was paid for in bytes."""
        if took_s > SHARE_S:
            self._share_of(owner).spent += int((took_s / SHARE_S - 1) * SHARE_BYTES)

    def _share_of(self, owner: str) -> _Share:
        share = self._by_owner.setdefault(owner, _Share())
        if not self._pass_begins:
            self._pass_begins = True
            asyncio.get_running_loop().call_soon(self._begin_pass)
        return share

    def _begin_pass(self) -> None:
        for owner, share in list(self._by_owner.items()):
            share.begin_pass()
            if not share.spent and not share.waiting:
                del self._by_owner[owner]
        self._pass_begins = bool(self._by_owner)
        if self._pass_begins:
            asyncio.get_running_loop().call_soon(self._begin_pass)
