"""By what strangers are counted: the address they come from. Pure.

An IPv6 source counts as its /64, within which a host changes its address at will (RFC 4291 section
2.5.4). What has no address, such as a Unix socket, is one source.
"""

import ipaddress
from typing import Any


def source_of(peername: Any) -> str:
    """The source of a socket's peer name: `(host, port, ...)`, or anything else where there is no
    address."""
    host = str(peername[0]) if isinstance(peername, tuple) and peername else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
