"""The TLS of the gRPC listeners, done here and not by gRPC.

`grpcio` can neither be told to give no session tickets nor to speak TLS 1.3 only, and its one way
to renew a certificate in a running server ends the process now and then when handshakes go on at
the same time. So a gRPC listener is a `TlsPort` (ALPN `h2`, and on the node listener a required
certificate). What is inside goes to a gRPC server of this process that listens on loopback without
TLS and takes only calls that came through here: `Arrivals` knows each inner connection by its port,
and whom it belongs to. Bytes are relayed as they are, with back-pressure both ways.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.nodes.peer import Peer
from palyra_fleet.nodes.tls_port import FrontLimits, SecuredSide, TlsPort
from palyra_fleet.tasks import spawn

_BUFFER_BYTES: Final = 256 * 1024
_INNER_HOST: Final = "127.0.0.1"


@dataclass(slots=True)
class Arrivals:
    """Whom each inner connection belongs to, by its port on loopback."""

    _peers: dict[int, Peer] = field(default_factory=dict)

    def peer_of(self, inner_address: str) -> Peer:
        """The peer of a call, given how gRPC names the inner connection. One that did not come
        through the front has no certificate, and no sound session."""
        host, _, port = inner_address.rpartition(":")
        found = None
        if host == f"ipv4:{_INNER_HOST}" and port.isdecimal():
            found = self._peers.get(int(port))
        return found or Peer(inner_address, (), session_is_sound=False)

    def add(self, inner_port: int, peer: Peer) -> None:
        self._peers[inner_port] = peer

    def remove(self, inner_port: int) -> None:
        self._peers.pop(inner_port, None)


class TlsFront(TlsPort):
    """One gRPC listener."""

    alpn = "h2"

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        arrivals: Arrivals,
        inner_port: int,
        limits: FrontLimits | None = None,
    ) -> None:
        super().__init__(context, limits)
        self.arrivals = arrivals
        self.inner_port = inner_port

    def side(self, source: str) -> SecuredSide:
        return _Outer(self, source)


class _Outer(SecuredSide):
    """The secured side. Reads nothing until the inner side is there."""

    def __init__(self, front: TlsFront, source: str) -> None:
        super().__init__(front, source)
        self._front = front
        self._inner: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._early: list[bytes] = []

    def serve(self, transport: asyncio.Transport, peer: Peer) -> None:
        self._connecting = spawn(self._connect(peer), "inner node connection")

    async def _connect(self, peer: Peer) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: _Inner(self, peer), _INNER_HOST, self._front.inner_port
            )
        except OSError:
            self.abort()

    def inner_made(self, inner: asyncio.Transport, inner_port: int, peer: Peer) -> None:
        """The inner side is there: known by its port before it carries a byte."""
        if self._ended or self._transport is None:
            inner.abort()
            return
        self._front.arrivals.add(inner_port, peer)
        self._inner = inner
        self._transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        inner.set_write_buffer_limits(high=_BUFFER_BYTES)
        for data in self._early:
            inner.write(data)
        self._early.clear()
        self._transport.resume_reading()

    def inner_lost(self, inner_port: int) -> None:
        self._front.arrivals.remove(inner_port)
        self._inner = None
        if self._transport is not None:
            self._transport.close()

    def take(self, data: bytes) -> None:
        """What the inner side says."""
        if self._transport is not None and not self._ended:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.write(data)
        else:  # came with the end of the handshake
            self._early.append(data)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_reading()

    def resume_writing(self) -> None:
        if self._inner is not None and not self._inner.is_closing():
            self._inner.resume_reading()

    def pause_outer_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_outer_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def ended(self) -> None:
        if self._inner is not None:
            self._inner.abort()


class _Inner(asyncio.Protocol):
    """The plain side, towards gRPC on loopback."""

    def __init__(self, outer: _Outer, peer: Peer) -> None:
        self._outer = outer
        self._peer = peer
        self._port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport was expected")
        self._port = transport.get_extra_info("sockname")[1]
        self._outer.inner_made(transport, self._port, self._peer)

    def data_received(self, data: bytes) -> None:
        self._outer.take(data)

    def pause_writing(self) -> None:
        self._outer.pause_outer_reading()

    def resume_writing(self) -> None:
        self._outer.resume_outer_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._outer.inner_lost(self._port)
