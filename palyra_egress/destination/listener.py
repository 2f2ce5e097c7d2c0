"""Where somebody listens, as people write it: `IP:PORT`, an IPv6 address in brackets or without.

A name is none: what is never to be reached is compared with addresses. Pure.
"""

from typing import Final

from palyra_egress.destination.address_class import parse_address

_PORT_DIGITS: Final = 5
_LAST_PORT: Final = 65_535


def listener_of(text: str) -> tuple[str, int]:
    """(address, port). Raises ValueError, whose text says what was expected."""
    host, _, port = text.rpartition(":")
    address = host.removeprefix("[").removesuffix("]")
    is_number = port.isascii() and port.isdecimal() and len(port) <= _PORT_DIGITS
    if parse_address(address) is None or not is_number or not 1 <= int(port) <= _LAST_PORT:
        raise ValueError("expected IP:PORT, an address and a port from 1 to 65535")
    return address, int(port)
