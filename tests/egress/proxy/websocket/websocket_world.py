"""Where tests of WebSockets play: the proxy, a raw server that upgrades, and a worker's side."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wsproto.frame_protocol import Frame, FrameProtocol, Opcode
from wsproto.utilities import generate_accept_token

from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.websocket.websocket_frames import write_frame
from tests.fakes.proxy_harness import Harness, Injection, Reply, basic, proxy_harness, read_reply

CANARY: Final = "AKIADECOY4QX7RZM2WTP"
POLICY: Final = """\
version: 1
name: sockets
rules:
  - id: sockets
    hosts: [ws.example]
    schemes: [http]
    ports: [{port}]
    paths: [/socket, /socket/**]
    private: [127.0.0.0/8]
    websocket: true
  - {{id: none, hosts: [none.example], schemes: [http], ports: [{port}], private: [127.0.0.0/8]}}
  - id: small
    hosts: [small.example]
    schemes: [http]
    ports: [{port}]
    private: [127.0.0.0/8]
    websocket: true
    limits: {{max_request_bytes: 1KiB, max_response_bytes: 1KiB, requests_per_minute: 2}}
  - id: hourly
    hosts: [hourly.example]
    schemes: [http]
    ports: [{port}]
    private: [127.0.0.0/8]
    websocket: true
    limits: {{bytes_per_hour: 1KiB}}
profiles: {{test: [sockets, none, small, hourly]}}
canaries: [{{id: decoy, value: {canary}}}]
violations: {{quarantine: [metadata_target, canary]}}
"""
HOSTS: Final = "127.0.0.1 ws.example none.example small.example hourly.example\n"
KEY: Final = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT: Final = generate_accept_token(KEY.encode()).decode()

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class ServerSide:
    """A raw server. `answer` is what it says to a request; None for the answer of the standard.
    `heads` and `frames` are what arrived."""

    port: int = 0
    answer: bytes | None = None
    more_headers: str = ""
    after: bytes = b""
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    frames: list[Frame] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writer = writer
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.has_ended.set()
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write((self.answer or self._opening(head)) + self.after)
        protocol = FrameProtocol(client=False, extensions=[])
        while data := await reader.read(65536):
            self.raw += data
            protocol.receive_bytes(data)
            self.frames += list(protocol.received_frames())
            async with self.changed:
                self.changed.notify_all()

    def _opening(self, head: str) -> bytes:
        found = re.search(r"(?im)^sec-websocket-key: *(\S+)", head)
        accept = generate_accept_token(found[1].encode()).decode() if found else "none"
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{self.more_headers}\r\n"
        ).encode()

    def send(self, opcode: Opcode, payload: bytes, *, fin: bool = True) -> None:
        assert self.writer is not None
        self.writer.write(write_frame(opcode, payload, fin=fin))

    @property
    def got(self) -> bytes:
        """The payloads of all data frames together."""
        parts = [f.payload for f in self.frames if not f.opcode.iscontrol()]
        return b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in parts)

    def of(self, opcode: Opcode) -> list[object]:
        return [frame.payload for frame in self.frames if frame.opcode is opcode]

    async def wait_for(self, holds: Callable[["ServerSide"], bool]) -> None:
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: holds(self))


@dataclass
class ClientSide:
    """An open socket as its worker sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _protocol: FrameProtocol = field(
        default_factory=lambda: FrameProtocol(client=True, extensions=[])
    )
    _waiting: list[Frame] = field(default_factory=list)

    def send(self, opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> None:
        self.writer.write(write_frame(opcode, payload, fin=fin, masked=True))

    def send_raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def next(self) -> Frame | None:
        """The next frame, or None once the connection is over."""
        async with asyncio.timeout(60):
            while not self._waiting:
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._protocol.receive_bytes(data)
                self._waiting += list(self._protocol.received_frames())
        return self._waiting.pop(0)

    async def is_cut(self) -> bool:
        """Read to the end; whether nothing came any more."""
        return await self.next() is None


@dataclass
class World:
    harness: Harness
    server: ServerSide

    def head(self, host: str = "ws.example", path: str = "/socket", **changed: str | None) -> bytes:
        """The usual request, with some headers changed or (None) left out."""
        authority = f"{host}:{self.server.port}"
        headers = {
            "Host": authority,
            "Proxy-Authorization": basic(),
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        }
        for name, value in changed.items():
            key = name.replace("_", "-")
            headers = {k: v for k, v in headers.items() if k.lower() != key.lower()}
            if value is not None:
                headers[key] = value
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"GET http://{authority}{path} HTTP/1.1\r\n{lines}\r\n".encode()

    async def ask(self, head: bytes) -> tuple[Reply | None, Streams]:
        reader, writer = await self.harness.connect()
        writer.write(head)
        return await read_reply(reader, has_body=lambda status: status != 101), (reader, writer)

    async def open(self, host: str = "ws.example", **changed: str | None) -> ClientSide:
        reply, (reader, writer) = await self.ask(self.head(host, **changed))
        assert reply is not None and reply.status == 101, reply
        return ClientSide(reader, writer)

    @property
    def core(self) -> Any:
        return self.harness.core

    def core_blocks(self, worker_id: str) -> bool:
        return bool(self.core.view.is_blocked(worker_id))

    def reasons(self) -> list[str]:
        return [e["reason"].removeprefix("egress.") for e in self.harness.verdicts()]

    def transfers(self) -> list[dict[str, object]]:
        return [e for e in self.harness.audit() if e["kind"] == "transfer"]


@asynccontextmanager
async def open_world(
    directory: Path, guard: type[ConnectionGuard] = ConnectionGuard, **deadlines: float
) -> AsyncIterator[World]:
    side = ServerSide()
    server = await asyncio.start_server(side.serve, "127.0.0.1", 0)
    side.port = server.sockets[0].getsockname()[1]
    inject = Injection(guard, deadlines=Deadlines(**deadlines))
    policy = POLICY.format(port=side.port, canary=CANARY)
    async with proxy_harness(directory, policy, HOSTS, inject=inject) as harness:
        try:
            yield World(harness, side)
        finally:
            server.close()
