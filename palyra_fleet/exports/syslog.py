"""Events as syslog messages (RFC 5424): over TLS (RFC 5425), or to a daemon on this machine.

Facility 13 (log audit), severity 4 or 6; MSGID is the event's reason, MSG its document as ASCII
JSON. Over TLS each message has its length before it, and a batch counts as taken when the other
machine's kernel has acknowledged all of it and the connection still stands. Syslog has no answers:
what a collector that crashes had in its memory is lost, which no sender can see. A daemon here is a
datagram socket, by path or by UDP to a loopback address. Nothing that a receiver sends is read.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections.abc import Sequence
from typing import Final

from palyra_fleet.exports.documents import is_warning, text_of
from palyra_fleet.exports.receiver import Undelivered
from palyra_fleet.logs.lines import moment_of
from palyra_fleet.signals.export_counts import ExportProblem
from palyra_fleet.wire.models import EventView

WITHIN_S: Final = 10.0
_FACILITY: Final = 13
_WARNING: Final = 4
_INFORMATIONAL: Final = 6
_MSGID: Final = 32
_HOSTNAME: Final = 255
_LOOK_AGAIN_S: Final = 0.02


def message_of(event: EventView, host: str, process_id: int) -> bytes:
    """One RFC 5424 message. `host` is this machine's name."""
    severity = _WARNING if is_warning(event) else _INFORMATIONAL
    head = (
        f"<{_FACILITY * 8 + severity}>1 {moment_of(event.at_unix_ms / 1000)}"
        f" {_word(host, _HOSTNAME)} palyra-fleet {process_id} {_word(event.reason, _MSGID)} -"
    )
    return f"{head} {text_of(event)}".encode("ascii")


def _word(text: str, most: int) -> str:
    """PRINTUSASCII without spaces; `-` if nothing is left."""
    return "".join(sign for sign in text if "!" <= sign <= "~")[:most] or "-"


class TlsSyslog:
    """A collector over TLS."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext, within_s: float = WITHIN_S
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._within_s = within_s
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def deliver(self, events: Sequence[EventView]) -> None:
        """On the connection that is open, or a new one. Raises Undelivered."""
        host, process_id = socket.gethostname(), os.getpid()
        messages = (message_of(event, host, process_id) for event in events)
        frames = b"".join(b"%d %s" % (len(message), message) for message in messages)
        try:
            async with asyncio.timeout(self._within_s):
                await self._send(frames)
        except TimeoutError:
            await self._fail(ExportProblem.LATE)
        except ssl.SSLError:
            await self._fail(ExportProblem.UNTRUSTED)
        except OSError:
            await self._fail(ExportProblem.UNREACHABLE)

    async def _send(self, frames: bytes) -> None:
        if self._open is not None and self._is_over(*self._open):
            await self.close()
        if self._open is None:
            host, port = self._address
            self._open = await asyncio.open_connection(
                host, port, ssl=self._tls, server_hostname=host
            )
            self._open[1].transport.set_write_buffer_limits(0)
        reader, writer = self._open
        writer.write(frames)
        await writer.drain()
        while writer.transport.get_write_buffer_size() or _unacknowledged(writer):
            await asyncio.sleep(_LOOK_AGAIN_S)
            if self._is_over(reader, writer):
                break
        if self._is_over(reader, writer):
            raise ConnectionResetError("the collector went away")

    @staticmethod
    def _is_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        return reader.at_eof() or writer.transport.is_closing()

    async def _fail(self, problem: ExportProblem) -> None:
        await self.close()
        raise Undelivered(problem) from None

    async def close(self) -> None:
        """Cut off: whoever reads us slowly is not waited for."""
        connection, self._open = self._open, None
        if connection is not None:
            connection[1].transport.abort()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection[1].wait_closed()


def _unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Bytes that the other machine's kernel has not acknowledged (Linux: SIOCOUTQ)."""
    sock = writer.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    found = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", found)[0])


class DatagramSyslog:
    """A daemon on this machine: `address` is a path, or a loopback address and a port."""

    def __init__(self, address: str | tuple[str, int], within_s: float = WITHIN_S) -> None:
        self._address = address
        self._within_s = within_s
        self._socket: socket.socket | None = None

    async def deliver(self, events: Sequence[EventView]) -> None:
        """Each as a datagram. Raises Undelivered."""
        host, process_id = socket.gethostname(), os.getpid()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._within_s):
                sock = self._connected()
                for event in events:
                    await loop.sock_sendall(sock, message_of(event, host, process_id))
                    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(error, os.strerror(error))
        except TimeoutError:
            await self.close()
            raise Undelivered(ExportProblem.LATE) from None
        except OSError:
            await self.close()
            raise Undelivered(ExportProblem.UNREACHABLE) from None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            is_path = isinstance(self._address, str)
            family = socket.AF_UNIX if is_path else _family_of(self._address[0])
            made = socket.socket(family, socket.SOCK_DGRAM)
            made.setblocking(False)
            try:
                made.connect(self._address)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    async def close(self) -> None:
        made, self._socket = self._socket, None
        if made is not None:
            made.close()


def _family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
