"""A worker that wants to hold up the others, as fast as its connections allow.

A program of its own, so that it costs only the proxy what it asks for. The argument is a `Flood` as
JSON. `refusals` asks for a host that no rule names, over connections that stay open and over fresh
ones; `chunks` uploads bodies that never end in chunks of one byte. It says `ready` once something
has come of it, and answers every line with the count so far: of refusals, or of KiB that it wrote.
"""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Final

CHUNKS: Final = b"1\r\nx\r\n" * 1_024  # 6 KiB


@dataclass(slots=True)
class Flood:
    """`proxy` is where it listens, `authority` what is asked for, `connections` how many stay open
    and `fresh` how many are opened for one request each."""

    proxy: tuple[str, int]
    authority: str
    authorization: str
    kind: str
    connections: int
    fresh: int
    count: int = 0

    def head(self, method: str, more: str = "") -> bytes:
        return (
            f"{method} http://{self.authority}/work HTTP/1.1\r\nHost: {self.authority}\r\n"
            f"{more}Proxy-Authorization: {self.authorization}\r\n\r\n"
        ).encode()

    async def keep_asking(self) -> None:
        reader, writer = await asyncio.open_connection(*self.proxy)
        while True:
            await self._ask(reader, writer)

    async def ask_anew(self) -> None:
        while True:
            reader, writer = await asyncio.open_connection(*self.proxy)
            await self._ask(reader, writer)
            writer.close()

    async def upload(self) -> None:
        _, writer = await asyncio.open_connection(*self.proxy)
        writer.write(self.head("POST", "Transfer-Encoding: chunked\r\n"))
        while True:
            writer.write(CHUNKS)
            await writer.drain()
            self.count += len(CHUNKS) // 1024

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.head("GET"))
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length or 0))
        if b" 403 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"the flood was not refused as it should be: {head!r}")
        self.count += 1


async def main() -> None:
    flood = Flood(**json.loads(sys.argv[1]))
    stays = flood.upload if flood.kind == "chunks" else flood.keep_asking
    async with asyncio.TaskGroup() as group:
        for _ in range(flood.connections):
            group.create_task(stays())
        for _ in range(flood.fresh):
            group.create_task(flood.ask_anew())
        while not flood.count:  # noqa: ASYNC110 (nothing to wait on but the count itself)
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(flood.count, flush=True)
        raise SystemExit(0)


if __name__ == "__main__":
    asyncio.run(main())
