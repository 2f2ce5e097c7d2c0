"""The one place that starts background tasks, so that none is lost.

`spawn` keeps a reference until the task ends (the loop itself keeps only a weak one) and logs a
failure that nobody awaited. A cancelled task is not a failure, and neither is what `told` names:
whoever awaits the task tells of it. The log names the task, the type of the failure and the places
in the code; never its text.
"""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial

from palyra_fleet.logs.faults import fault_of

_log = logging.getLogger(__name__)
_running: set[asyncio.Task[object]] = set()


def spawn[T](
    coroutine: Coroutine[object, object, T],
    name: str,
    *,
    told: tuple[type[Exception], ...] = (),
) -> asyncio.Task[T]:
    """Start `coroutine` as a task that is kept alive and whose failure is logged, unless it is one
    of `told`."""
    task = asyncio.create_task(coroutine, name=name)  # noqa: TID251 (the helper the rule points to)
    _running.add(task)
    task.add_done_callback(partial(_finished, told))
    return task


def _finished(told: tuple[type[Exception], ...], task: asyncio.Task[object]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None and not isinstance(error, told):
        _log.error("task %s failed: %s", task.get_name(), fault_of(error))
