"""A worker that speaks HTTP/2 through the proxy: CONNECT, TLS with ALPN h2, and its streams."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.h2_peer import Fields, Peer, Stream
from tests.fakes.proxy_harness import Harness


class NoTunnel(Exception):
    """The proxy opened no tunnel; the text is the status, or `cut`."""


class H2Worker(Peer):
    """The worker's end; `authority` is what its requests name unless they say otherwise."""

    authority = ""

    def fields(self, method: str = "GET", path: str = "/x", **named: str) -> list[tuple[str, str]]:
        """The fields of a request; `named` adds or changes some (`_` for `-`, `authority`,
        `scheme`)."""
        pseudo = {
            ":method": method,
            ":scheme": named.pop("scheme", "https"),
            ":path": path,
            ":authority": named.pop("authority", self.authority),
        }
        rest = {name.replace("_", "-"): value for name, value in named.items()}
        return [*pseudo.items(), *rest.items()]

    def ask(self, fields: Fields, *, end: bool = True) -> Stream:
        """Open a stream with a head."""
        stream_id = self.h2.get_next_available_stream_id()
        stream = self.streams[stream_id] = Stream(stream_id)
        self.head(stream_id, fields, end=end)
        return stream

    async def answer(self, stream: Stream) -> Stream:
        """Wait until a stream is over."""
        await self.until(lambda: stream.over)
        return stream

    async def get(self, path: str = "/x", **named: str) -> Stream:
        return await self.answer(self.ask(self.fields("GET", path, **named)))

    async def post(self, body: bytes, path: str = "/x", **named: str) -> Stream:
        stream = self.ask(self.fields("POST", path, **named), end=False)
        await self.data(stream.stream_id, body, end=True)
        return await self.answer(stream)

    async def ended(self) -> None:
        """Wait until the proxy has ended the connection."""
        await self.until(lambda: self.closed)
        assert self.closed


@asynccontextmanager
async def h2_worker(
    harness: Harness,
    authority: str,
    *,
    credentials: str | None = None,
    settings: dict[Any, int] | None = None,
    cls: type[H2Worker] = H2Worker,
    roots: Path | None = None,
) -> AsyncIterator[H2Worker]:
    """A worker's connection with a tunnel to `authority` and HTTP/2 inside."""
    reply, reader, writer = await harness.connect_to(authority, credentials=credentials)
    if reply is None or reply.status != 200:
        writer.close()
        raise NoTunnel("cut" if reply is None else str(reply.status))
    trusted = roots or harness.proxy.enforcement.authority.root_path
    context = ssl.create_default_context(cafile=str(trusted))
    context.set_alpn_protocols(["h2", "http/1.1"])
    await writer.start_tls(context, server_hostname=authority.rpartition(":")[0])
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    worker = cls(reader, writer, client_side=True)
    worker.authority = authority
    worker.h2.initiate_connection()
    if settings:
        worker.h2.update_settings(settings)
    worker.flush()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(worker.read())
        try:
            yield worker
        finally:
            worker.close()
            reading.cancel()
