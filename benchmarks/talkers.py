"""Workers' connections that never stop talking, and when each of them was ended.

A program of its own, so that what it does costs the proxy nothing. The argument is a `Talk` as
JSON. It opens its tunnels, each with TLS inside and one chunked request whose body never ends, says
`ready`, and from then on writes one chunk every `every_ms` on each, evenly spread over the tunnels.
When every connection has ended it prints the time of the last end (monotonic nanoseconds, which all
processes of a machine share) as JSON. An answer before the end is an error: the tunnels must have
been alive.
"""

import asyncio
import json
import ssl
import sys
from dataclasses import dataclass
from typing import Final

from end_watch import EndWatch

CHUNK: Final = b"40\r\n" + b"x" * 64 + b"\r\n"
OPEN_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Talk:
    """`proxy` is where it listens, `credential` a whole header line with its end."""

    proxy: tuple[str, int]
    authority: str
    name: str
    ca_file: str
    credential: str
    tunnels: int
    every_ms: float


async def opened(
    talk: Talk, context: ssl.SSLContext, gate: asyncio.Semaphore
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A tunnel with a request on its way."""
    async with gate:
        reader, writer = await asyncio.open_connection(*talk.proxy)
        host = f"Host: {talk.authority}\r\n"
        writer.write(f"CONNECT {talk.authority} HTTP/1.1\r\n{host}{talk.credential}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"no tunnel: {head!r}")
        await writer.start_tls(context, server_hostname=talk.name)
        writer.write(f"POST /work HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n".encode())
        writer.write(CHUNK)
        await writer.drain()
        return reader, writer


async def talking(writer: asyncio.StreamWriter, first_s: float, every_s: float) -> None:
    """Say something every `every_s`, from `first_s` on."""
    await asyncio.sleep(first_s)
    while not writer.is_closing():
        writer.write(CHUNK)
        await asyncio.sleep(every_s)


async def end_of(reader: asyncio.StreamReader) -> None:
    """Until the connection ended, whichever way."""
    try:
        if answer := await reader.read(65536):
            raise RuntimeError(f"answered before its end: {answer[:80]!r}")
    except OSError:
        pass


async def main() -> None:
    talk = Talk(**json.loads(sys.argv[1]))
    context = ssl.create_default_context(cafile=talk.ca_file)
    gate = asyncio.Semaphore(OPEN_AT_ONCE)
    streams = await asyncio.gather(*(opened(talk, context, gate) for _ in range(talk.tunnels)))
    async with asyncio.TaskGroup() as group:
        every_s = talk.every_ms / 1000
        for number, (_, writer) in enumerate(streams):
            group.create_task(talking(writer, every_s * number / len(streams), every_s))
        ends = EndWatch()
        for _, writer in streams:
            ends.watch(writer.get_extra_info("socket"))
        print("ready", flush=True)
        await asyncio.gather(*(end_of(reader) for reader, _ in streams))
        await asyncio.to_thread(ends.none_is_open.wait)
        for _, writer in streams:
            writer.transport.abort()
    print(json.dumps({"last_end_ns": ends.last_end_ns}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
