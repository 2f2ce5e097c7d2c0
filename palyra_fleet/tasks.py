"""The one place that starts background tasks, so that none is lost.

`spawn` keeps a reference until the task ends (the loop itself keeps only a weak one) and logs a
failure that nobody awaited. A cancelled task is not a failure. The log names the task and the type
of the failure, with its traceback; never its arguments.
"""

import asyncio
import logging
from collections.abc import Coroutine

_log = logging.getLogger(__name__)
_running: set[asyncio.Task[object]] = set()


def spawn[T](coroutine: Coroutine[object, object, T], name: str) -> asyncio.Task[T]:
    """Start `coroutine` as a task that is kept alive and whose failure is logged."""
    task = asyncio.create_task(coroutine, name=name)  # noqa: TID251 (the helper the rule points to)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[object]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        _log.error("task %s failed: %s", task.get_name(), type(error).__name__, exc_info=error)
