"""Signals that ask this process to end, heard by who can end what it runs in order."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Final

_HEARD: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def heard_signals(hear: Callable[[signal.Signals], None], *, wanted: bool = True) -> Iterator[None]:
    """Call `hear` for each; put the old handlers back after. Only the main thread can."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _HEARD}
    for number in _HEARD:
        loop.add_signal_handler(number, hear, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
