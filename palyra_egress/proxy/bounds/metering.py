"""Measures what a coroutine takes of the processor, whatever else runs while it waits.

The loop runs a coroutine in steps, from one wait to the next. Each step is timed by itself, in
processor time of this thread, so what others did in between is not in it.
"""

import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


@types.coroutine
def metered[T](
    work: Coroutine[Any, Any, T], charge: Callable[[float], None]
) -> Generator[Any, Any, T]:
    """Run `work`; every step's seconds of the processor are told to `charge`, and what is thrown
    into the task while it waits reaches `work`."""
    thrown: BaseException | None = None
    while True:
        began_s = time.thread_time()
        try:
            awaited = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            charge(time.thread_time() - began_s)
        try:
            yield awaited
            thrown = None
        except BaseException as error:  # noqa: BLE001 it is handed on, whatever it is
            thrown = error
