"""What both ends of HTTP/2 in tests share: a connection with a reader of its own, and its streams.

Built on the h2 library with its checks of what is sent switched off, so that a test can send what
nobody should; `raw` sends bytes past it altogether. Flow control is honest unless `credits` is
False: then this side takes nothing, and says so by never opening a window again.
"""

import asyncio
import contextlib
import ssl
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

type Fields = Sequence[tuple[str | bytes, str | bytes]]
DEADLINE_S = 60.0


@dataclass
class Stream:
    """One stream as this side saw it; `interim` are the 1xx heads, `reset` the code of a reset."""

    stream_id: int
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    received: int = 0
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name.encode()].decode()

    def names(self) -> set[str]:
        return {name.decode() for name, _ in self.fields}

    @property
    def status(self) -> int | None:
        return int(self[":status"]) if self.fields else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Peer:
    """One side of one connection."""

    keeps_bodies = True
    credits = True

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client_side: bool
    ) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client_side,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        self.streams: dict[int, Stream] = {}
        self.goaway: Any = None
        self.closed = False
        self.changed = asyncio.Event()
        self._unacknowledged: dict[int, int] = defaultdict(int)

    # --- reading --------------------------------------------------------------------------------

    async def read(self) -> None:
        """Read until the other side hangs up."""
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    self.on_event(event)
                self.flush()
                self.changed.set()
        except (OSError, ssl.SSLError, h2.exceptions.ProtocolError):
            pass
        finally:
            self.closed = True
            self.changed.set()

    def on_event(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        match event:
            case h2.events.RequestReceived():
                stream = Stream(event.stream_id, list(event.headers))
                self.streams[event.stream_id] = stream
            case h2.events.ResponseReceived() if stream:
                stream.fields = list(event.headers)
            case h2.events.InformationalResponseReceived() if stream:
                stream.interim.append(list(event.headers))
            case h2.events.DataReceived() if stream:
                stream.received += len(event.data)
                if self.keeps_bodies:
                    stream.body += event.data
                self._unacknowledged[event.stream_id] += event.flow_controlled_length
                if self.credits:
                    self.give_credit(event.stream_id)
            case h2.events.TrailersReceived() if stream:
                stream.trailers = list(event.headers)
            case h2.events.StreamEnded() if stream:
                stream.ended = True
            case h2.events.StreamReset() if stream:
                stream.reset = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.goaway = event

    def give_credit(self, stream_id: int) -> None:
        self.h2.acknowledge_received_data(self._unacknowledged.pop(stream_id, 0), stream_id)

    async def until(self, holds: Any) -> None:
        """Wait until something is true of this connection, which only reading changes."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds() and not self.closed:
                self.changed.clear()
                await self.changed.wait()

    # --- writing --------------------------------------------------------------------------------

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.writer.write(data)

    def raw(self, data: bytes) -> None:
        self.flush()
        self.writer.write(data)

    def head(self, stream_id: int, fields: Fields, *, end: bool = False) -> None:
        self.h2.send_headers(stream_id, fields, end_stream=end)
        self.flush()

    async def data(self, stream_id: int, body: bytes, *, end: bool = False) -> None:
        """Send a body as the windows allow."""
        while body or end:
            stream = self.streams.get(stream_id)
            room = min(
                self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size
            )
            if body and room <= 0:
                self.changed.clear()
                await self.changed.wait()
                if self.closed or stream is None or stream.reset is not None:
                    raise ConnectionResetError
                continue
            part, body = body[:room], body[room:]
            self.h2.send_data(stream_id, part, end_stream=end and not body)
            self.flush()
            await self.writer.drain()
            if not body:
                return

    def reset(self, stream_id: int, code: int = h2.errors.ErrorCodes.CANCEL) -> None:
        self.h2.reset_stream(stream_id, code)
        self.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.writer.close()


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One raw frame (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4) + payload
