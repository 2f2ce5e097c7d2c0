"""A port of loopback for a program that is told which one before it opens it.

It lies below the range from which the kernel gives ports to connections (`ip(7)`,
`ip_local_port_range`), so that no connection is given it in between.
"""

import random
import socket
from pathlib import Path
from typing import Final

_GIVEN_BY_THE_KERNEL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_CHOICE: Final = 8_000
_RANDOM: Final = random.SystemRandom()  # no test's seed gives two tests the same port


def free_port() -> int:
    least_given = int(_GIVEN_BY_THE_KERNEL.read_text().split()[0])
    while True:
        port = _RANDOM.randrange(least_given - _CHOICE, least_given)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
