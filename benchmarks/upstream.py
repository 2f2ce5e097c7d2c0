"""The benchmarks' upstream: the smallest honest HTTP/1.1 server, plain and inside TLS.

It answers every request head with the same 200 and a body of BODY_BYTES, keeps connections open,
and does nothing else, so that what is measured is what stands before it. A program of its own:
the argument is a PEM file with key and certificate; the first line out is JSON with its two ports.
Every line in is answered by one with what has arrived since the one before: how many bytes of
uploads, and when (monotonic nanoseconds) the last of them came and, with `--watch-ends`, the last
connection ended.
"""

import asyncio
import json
import signal
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

from end_watch import EndWatch

BODY_BYTES: Final = 1024
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES
) + b"x" * BODY_BYTES
_HEAD_END: Final = b"\r\n\r\n"


@dataclass(slots=True)
class Arrivals:
    """What has come since it was last asked for."""

    bytes: int = 0
    last_byte_ns: int = 0
    last_end_ns: int = 0

    def told(self) -> str:
        line = json.dumps(asdict(self))
        self.bytes = self.last_byte_ns = self.last_end_ns = 0
        return line


ARRIVED: Final = Arrivals()
ENDS: Final = EndWatch() if "--watch-ends" in sys.argv[2:] else None


class Answering(asyncio.Protocol):
    """One connection: an answer for each head; a body is counted and otherwise ignored."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        if ENDS is not None:
            ENDS.watch(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"POST "):
            self._transport = None  # its body never ends, and neither does the wait for the answer
        if self._transport is None:
            ARRIVED.bytes += len(data)
            ARRIVED.last_byte_ns = time.monotonic_ns()
            return
        heads = (self._pending + data).split(_HEAD_END)
        self._pending = heads.pop()
        if heads:
            self._transport.write(ANSWER * len(heads))


def answer_line() -> None:
    if sys.stdin.readline():
        ARRIVED.last_end_ns = ENDS.last_end_ns if ENDS is not None else 0
        print(ARRIVED.told(), flush=True)
    else:
        asyncio.get_running_loop().remove_reader(sys.stdin)


def server_context(pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


async def main() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    plain = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1024)
    secure = await loop.create_server(
        Answering, "127.0.0.1", 0, backlog=1024, ssl=server_context(sys.argv[1])
    )
    ports = {"plain": plain.sockets[0].getsockname()[1], "tls": secure.sockets[0].getsockname()[1]}
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    loop.add_reader(sys.stdin, answer_line)
    await ended.wait()
    plain.close()
    secure.close()


if __name__ == "__main__":
    asyncio.run(main())
