"""GroupCommit: decisions in the order they were made, several to one transaction.

The first is written at once. While it is being written others gather, and where more than one came
a group waits up to `GATHER_MS` for more, so that one sync of the disk serves them all. A caller
alone never waits. Each decision rests on the one before it: after a failure everything that was not
durable yet fails too, and nothing is taken until `resume` says that the caller has forgotten it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from palyra_fleet.store.protocol import StoreConflict, StoreFailed
from palyra_fleet.tasks import spawn

GATHER_MS: Final = 5
MAX_GROUP: Final = 512


class GroupCommit[W]:
    """Writes what is submitted, in order. For one event loop."""

    def __init__(self, write: Callable[[Sequence[W]], Awaitable[None]]) -> None:
        self._write = write
        self._pending: list[tuple[W, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._failed: StoreFailed | None = None
        self._last_size = 0

    def submit(self, item: W) -> asyncio.Future[None]:
        """Done when `item` is durable. Fails with StoreConflict or StoreFailed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_looked_at)
        if self._failed is not None:
            future.set_exception(self._failed)
            return future
        self._pending.append((item, future))
        if self._writer is None:
            self._writer = spawn(self._write_all(), "group-commit")
        return future

    def resume(self) -> None:
        """Take decisions again after a failure."""
        self._failed = None

    async def flush(self) -> None:
        """Return when everything submitted so far is durable or has failed. Raises neither."""
        self._hurry.set()
        writer = self._writer
        if writer is not None:
            await asyncio.wait([writer])

    async def _write_all(self) -> None:
        try:
            while self._pending:
                await self._gather()
                group, self._pending = self._pending[:MAX_GROUP], self._pending[MAX_GROUP:]
                self._last_size = len(group)
                await self._write_group(group)
        finally:
            self._writer = None
            self._hurry.clear()

    async def _gather(self) -> None:
        if self._last_size <= 1 or len(self._pending) >= MAX_GROUP:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_MS / 1000):
                await self._hurry.wait()

    async def _write_group(self, group: list[tuple[W, asyncio.Future[None]]]) -> None:
        try:
            await self._write([item for item, _ in group])
        except (StoreConflict, StoreFailed) as error:
            self._fail(group, error)
        except BaseException:
            unknown = StoreFailed("the writer ended; start the fleet again", ambiguous=True)
            self._fail(group, unknown)
            raise
        else:
            for _, future in group:
                if not future.done():
                    future.set_result(None)

    def _fail(
        self, group: list[tuple[W, asyncio.Future[None]]], error: StoreConflict | StoreFailed
    ) -> None:
        ambiguous = isinstance(error, StoreFailed) and error.ambiguous
        text = "an earlier decision could not be made durable, and this one rests on it"
        self._failed = StoreFailed(text, ambiguous)
        later, self._pending = self._pending, []
        for _, future in group:
            if not future.done():
                future.set_exception(error)
        for _, future in later:
            if not future.done():
                future.set_exception(self._failed)


def _looked_at(future: asyncio.Future[None]) -> None:
    """Whoever needs the outcome asks for it; nobody asking is no fault."""
    if not future.cancelled():
        future.exception()
