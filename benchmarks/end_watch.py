"""When many connections ended, seen as it happens and not when a busy loop gets round to it.

A loop that hears of thousands of ends needs longer to go through them than a proxy needs to cut
them. So a thread of its own waits for nothing but that, takes all that ended in one call, and notes
the time (monotonic nanoseconds, which all processes of a machine share). It watches a duplicate of
each descriptor, so that an end is seen although the loop has closed its own by then.
"""

import os
import select
import socket
import sys
import threading
import time
from asyncio.trsock import TransportSocket
from typing import Final

AT_ONCE: Final = 16384
SWITCH_S: Final = 0.0005


class EndWatch:
    """`last_end_ns` is when the last one ended of those that have ended; `none_is_open` is set when
    all have."""

    def __init__(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._epoll = select.epoll()
        self._open = 0
        self.last_end_ns = 0
        self.none_is_open = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def watch(self, sock: socket.socket | TransportSocket) -> None:
        self._open += 1
        self._epoll.register(os.dup(sock.fileno()), select.EPOLLRDHUP)

    def _wait(self) -> None:
        while True:
            ended = self._epoll.poll(None, AT_ONCE)
            self.last_end_ns = time.monotonic_ns()
            for descriptor, _ in ended:
                self._epoll.unregister(descriptor)
                os.close(descriptor)
            self._open -= len(ended)
            if not self._open:
                self.none_is_open.set()
