"""Connections: which certificate came over which, and how to cut one.

`grpcio` closes no single connection of a server. But the sockets are this process's own, so the one
whose other end has the wanted address is found among its descriptors and shut down; whoever reads
it sees the end. That a connection is open gives no power, since every call is judged again: cutting
it spares the work, and shows the other side that something ended. Where descriptors cannot be
listed nothing is cut.
"""

import ipaddress
import os
import socket
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import unquote

MAX_PEERS: Final = 65_536
_DESCRIPTORS: Final = (Path("/proc/self/fd"), Path("/dev/fd"))


class PeerTable:
    """The last certificate seen over each connection, the latest `MAX_PEERS`."""

    def __init__(self) -> None:
        self._fingerprints: OrderedDict[str, str] = OrderedDict()

    def remember(self, address: str, fingerprint: str) -> None:
        self._fingerprints[address] = fingerprint
        self._fingerprints.move_to_end(address)
        if len(self._fingerprints) > MAX_PEERS:
            self._fingerprints.popitem(last=False)

    def take(self, fingerprints: Iterable[str]) -> frozenset[str]:
        """The addresses that came with these certificates; they are forgotten."""
        wanted = frozenset(fingerprints)
        found = {address for address, known in self._fingerprints.items() if known in wanted}
        for address in found:
            del self._fingerprints[address]
        return frozenset(found)


def cut(addresses: Iterable[str], local_ports: Iterable[int]) -> int:
    """Shut down our connections to these addresses (in gRPC's spelling); answers how many.

    Only sockets accepted on one of `local_ports` are touched.
    """
    wanted = {pair for address in addresses if (pair := _pair(address)) is not None}
    ports = frozenset(local_ports)
    count = 0
    for descriptor in _descriptors() if wanted else ():
        found = _socket_of(descriptor)
        if found is None:
            continue
        with found:
            try:
                theirs, ours = found.getpeername(), found.getsockname()
                if (_plain(theirs[0]), theirs[1]) in wanted and ours[1] in ports:
                    found.shutdown(socket.SHUT_RDWR)
                    count += 1
            except (OSError, IndexError):
                continue  # it ended by itself, or is no connection
    return count


def _descriptors() -> list[int]:
    for directory in _DESCRIPTORS:
        if directory.is_dir():
            return [int(name) for name in os.listdir(directory) if name.isdigit()]  # noqa: PTH208
    return []


def _socket_of(descriptor: int) -> socket.socket | None:
    """A copy of the descriptor as a TCP socket; None for anything else."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    if found.family in {socket.AF_INET, socket.AF_INET6}:
        return found
    found.close()
    return None


def _pair(address: str) -> tuple[str, int] | None:
    """Host and port of gRPC's spelling: `ipv4:192.0.2.1:4711`, `ipv6:%5B2001:db8::1%5D:4711`."""
    family, _, rest = unquote(address).partition(":")
    host, _, port = rest.rpartition(":")
    if family not in {"ipv4", "ipv6"} or not port.isdigit():
        return None
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """An IPv4 address as such, also where a dual-stack socket shows it inside an IPv6 one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(inner or address)
