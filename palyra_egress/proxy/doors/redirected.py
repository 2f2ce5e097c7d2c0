"""Where a redirected connection was headed for, as the kernel remembers it.

A netfilter REDIRECT rule changes the destination of a connection to a listener of ours; the one
that its sender chose is kept with the connection (SO_ORIGINAL_DST, for IPv4 and IPv6). A connection
that was made to the listener itself was not redirected: it has no destination. Linux only.
"""

import socket
from dataclasses import dataclass

from mitmproxy.platform import linux

from palyra_egress.destination.address_class import AddressClass, classify


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address in its one spelling, and a port."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


def original_destination(sock: socket.socket) -> Address | None:
    """None where the connection was not redirected, or nobody can say."""
    try:
        ip, port = linux.original_addr(sock)
        here = sock.getsockname()
    except OSError:
        return None
    found = classify(ip)
    if found.address_class is AddressClass.UNPARSABLE or not port:
        return None
    if (found.text, port) == (classify(str(here[0])).text, here[1]):
        return None
    return Address(found.text, port)
