"""What the programs tell the service manager: that they are ready, alive, and ending.

systemd passes a datagram socket in `NOTIFY_SOCKET` and, where the unit has `WatchdogSec=`, the time
in `WATCHDOG_USEC` (microseconds) within which it wants to hear again. READY=1 is said once all
listeners are open; WATCHDOG=1 from the loop that serves, so that a loop that hangs is noticed;
STOPPING=1 when the program was told to end. Without the variable nothing is said, and what cannot
be delivered ends nothing. Sources: `sd_notify(3)`, `sd_watchdog_enabled(3)`, systemd 252.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from palyra_fleet.tasks import spawn

_SOCKET: Final = "NOTIFY_SOCKET"
_TIMES_WITHIN: Final = 3
"""How often the watchdog is fed within the time it allows."""


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager, in one datagram; whether there was one to tell."""
    address = environment.get(_SOCKET, "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told,
    ):
        told.setblocking(False)
        told.sendto(state.encode(), address)
    return True


def watchdog_s(environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How long the manager waits for a sign of life, in seconds; None if it does not."""
    wanted, whom = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if whom and whom != str(os.getpid() if pid is None else pid):
        return None
    return int(wanted) / 1e6 if wanted.isdecimal() and int(wanted) > 0 else None


@contextmanager
def serving_notice() -> Iterator[None]:
    """Everything is open: say so, and go on saying so until the block ends."""
    notify("READY=1")
    within_s = watchdog_s()
    feeding = None if within_s is None else spawn(_feed(within_s / _TIMES_WITHIN), "watchdog")
    try:
        yield
    finally:
        if feeding is not None:
            feeding.cancel()
        notify("STOPPING=1")


async def _feed(every_s: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
