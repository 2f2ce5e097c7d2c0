"""A SOCKS5 client that writes each message as a test wants it (RFC 1928, RFC 1929)."""

import asyncio
import ipaddress

from tests.fakes.proxy_harness import LEASE, SECRET, Harness

GREETING = b"\x05\x01\x02"
METHOD_CHOSEN = b"\x05\x02"
WELCOME = b"\x01\x00"
SUCCEEDED = 0


class NotWelcome(Exception):
    """The proxy did not take the greeting or the credentials."""


type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def credentials(user: str = LEASE, secret: str = SECRET) -> bytes:
    return b"\x01" + _counted(user.encode()) + _counted(secret.encode())


def request(host: str | bytes, port: int, command: int = 1) -> bytes:
    """A request for an address, where the text is one, or for a name."""
    return bytes([5, command, 0]) + _address(host) + port.to_bytes(2)


def _address(host: str | bytes) -> bytes:
    if isinstance(host, bytes):
        return b"\x03" + _counted(host)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return b"\x03" + _counted(host.encode())
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed


def _counted(data: bytes) -> bytes:
    return bytes([len(data)]) + data


async def greeted(harness: Harness) -> Streams:
    """A connection on which the lease's credentials were accepted."""
    reader, writer = await harness.connect_socks()
    writer.write(GREETING)
    for expected, sent in ((METHOD_CHOSEN, credentials()), (WELCOME, b"")):
        answer = await reader.readexactly(2)
        if answer != expected:
            raise NotWelcome(answer.hex())
        writer.write(sent)
    return reader, writer


async def asked(harness: Harness, host: str | bytes, port: int) -> tuple[int, Streams]:
    """The code of the reply to a CONNECT, and the connection."""
    reader, writer = await greeted(harness)
    writer.write(request(host, port))
    reply = await reader.readexactly(10)
    assert (reply[0], reply[2:]) == (5, b"\x00\x01" + bytes(6))
    return reply[1], (reader, writer)
