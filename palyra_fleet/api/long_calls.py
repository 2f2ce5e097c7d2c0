"""Calls that wait or stream: how many of one caller and in all there are, and their end.

A place is given back when the call is over, whatever ended it. Beyond the bound of one caller the
answer is 429, beyond that of all 503; of all, some are kept for who must not be kept out by
everybody else. `ending` says that the application stops: who waits answers then; `cut` ends those
that do not look.
"""

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from palyra_fleet.api.problems import ApiReason, ApiRefusal, Headers


@dataclass(slots=True)
class LongCalls:
    """The places of one kind of call. `most_in_all` None: only each caller is bounded. The last
    `kept` of all go to nobody who is not `let_first`."""

    most_each: int
    most_in_all: int | None = None
    kept: int = 0
    ending: bool = False
    _of_caller: dict[Hashable, set[asyncio.Task[Any]]] = field(default_factory=dict)

    @contextmanager
    def held(self, caller: Hashable, *, let_first: bool = False) -> Iterator[None]:
        """A place for the task that calls. Raises ApiRefusal where there is none."""
        own = self._of_caller.get(caller, set())
        task = asyncio.current_task()
        if task is None or len(own) >= self.most_each:
            raise ApiRefusal(ApiReason.TOO_MANY_CALLS, headers=Headers({"Retry-After": "1"}))
        kept = 0 if let_first else self.kept
        if self.most_in_all is not None and len(self) >= self.most_in_all - kept:
            raise ApiRefusal(ApiReason.PLACES_TAKEN, headers=Headers({"Retry-After": "5"}))
        self._of_caller[caller] = own
        own.add(task)
        try:
            yield
        finally:
            own.discard(task)
            if not own:
                self._of_caller.pop(caller, None)

    def __len__(self) -> int:
        return sum(map(len, self._of_caller.values()))

    def cut(self) -> None:
        """Cancel every call that goes on."""
        self.ending = True
        for task in [one for own in self._of_caller.values() for one in own]:
            task.cancel()
