"""The TLS of the gRPC listeners, done here and not by gRPC.

`grpcio` can neither be told to give no session tickets nor to speak TLS 1.3 only, and its one way
to renew a certificate in a running server ends the process now and then when handshakes go on at
the same time. So a listener is this front: TLS 1.3 without tickets (nothing can be resumed, every
handshake checks the whole chain), ALPN `h2`, and on the node listener a required certificate. What
is inside goes to a gRPC server of this process that listens on loopback without TLS and takes only
calls that came through here: `Arrivals` knows each inner connection by its port, and whom it
belongs to. A new certificate is simply used from the next handshake on. Bytes are relayed as they
are, with back-pressure both ways; a connection whose certificate is revoked is reset.
"""

import asyncio
import hashlib
import ipaddress
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.nodes.peer import Peer
from palyra_fleet.tasks import spawn

HANDSHAKE_WITHIN_S: Final = 10.0
MAX_CONNECTIONS: Final = 20_000
MAX_PER_SOURCE: Final = 10_000
MAX_HANDSHAKES: Final = 512
_BUFFER_BYTES: Final = 256 * 1024
_ALPN: Final = "h2"
_INNER_HOST: Final = "127.0.0.1"

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Connections at once, in all and from one address, and handshakes that are not finished."""

    in_all: int = MAX_CONNECTIONS
    per_source: int = MAX_PER_SOURCE
    handshakes: int = MAX_HANDSHAKES
    handshake_within_s: float = HANDSHAKE_WITHIN_S


class TlsFront:
    """One listener. `open` it, `close` it; `context` is asked at every handshake."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        arrivals: Arrivals,
        inner_port: int,
        limits: FrontLimits | None = None,
    ) -> None:
        self.context = context
        self.arrivals = arrivals
        self.inner_port = inner_port
        self.limits = limits or FrontLimits()
        self._server: asyncio.Server | None = None
        self._open: set[_Outer] = set()
        self._per_source: Counter[str] = Counter()
        self._handshakes = 0

    @property
    def connections(self) -> int:
        """How many are open, handshakes done."""
        return len(self._open)

    @property
    def handshakes(self) -> int:
        """How many are not finished."""
        return self._handshakes

    async def open(self, host: str, port: int) -> int:
        """Listen; answers the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Accepted(self), host, port, backlog=1024, reuse_port=False
        )
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    async def stop_listening(self) -> None:
        """Take no new connections; those that are open go on."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Stop listening and reset what is open."""
        await self.stop_listening()
        for outer in tuple(self._open):
            outer.abort()

    def cut(self, fingerprints: Iterable[str]) -> int:
        """Reset the connections that came with these certificates; answers how many."""
        wanted = frozenset(fingerprints)
        found = [outer for outer in self._open if outer.fingerprint in wanted]
        for outer in found:
            outer.abort()
        return len(found)

    async def accept(self, transport: asyncio.Transport, source: str, address: str) -> None:
        """One connection, from its first byte to the relay."""
        limits = self.limits
        if (
            len(self._open) + self._handshakes >= limits.in_all
            or self._per_source[source] >= limits.per_source
            or self._handshakes >= limits.handshakes
        ):
            transport.abort()
            return
        self._per_source[source] += 1
        self._handshakes += 1
        outer = _Outer(self, source)
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                outer,
                self.context(),
                server_side=True,
                ssl_handshake_timeout=limits.handshake_within_s,
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, asyncio.IncompleteReadError) as error:
            _log.debug("a handshake failed: %s", type(error).__name__)
            self._forget_source(source)
            transport.abort()
            return
        finally:
            self._handshakes -= 1
        if secured is None:  # it ended while it was being secured
            self._forget_source(source)
            return
        outer.begin(secured, address)

    def took(self, outer: "_Outer") -> None:
        self._open.add(outer)

    def lost(self, outer: "_Outer") -> None:
        self._open.discard(outer)
        self._forget_source(outer.source)

    def _forget_source(self, source: str) -> None:
        self._per_source[source] -= 1
        if self._per_source[source] <= 0:
            del self._per_source[source]


class _Accepted(asyncio.Protocol):
    """A connection before TLS: read by nobody until the handshake takes it over."""

    def __init__(self, front: TlsFront) -> None:
        self._front = front
        self._securing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport was expected")
        transport.pause_reading()
        name = transport.get_extra_info("peername")
        if name is None:  # reset already
            transport.abort()
            return
        address = _grpc_spelling(name[0], name[1])
        source = _plain(name[0])
        self._securing = spawn(self._front.accept(transport, source, address), "node handshake")


class _Outer(asyncio.Protocol):
    """The secured side. Reads nothing until the inner side is there."""

    def __init__(self, front: TlsFront, source: str) -> None:
        self.source = source
        self.fingerprint = ""
        self._front = front
        self._transport: asyncio.Transport | None = None
        self._inner: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._ended = False

    def begin(self, transport: asyncio.Transport, address: str) -> None:
        """After the handshake: who it is, and a way in."""
        self._transport = transport
        self._front.took(self)
        secured: ssl.SSLObject = transport.get_extra_info("ssl_object")
        sound = (
            secured.version() == "TLSv1.3"
            and not secured.session_reused
            and secured.selected_alpn_protocol() == _ALPN
        )
        if not sound or self._ended:
            self.abort()
            return
        chain = tuple(secured.get_unverified_chain() or ())
        if chain:
            self.fingerprint = hashlib.sha256(chain[0]).hexdigest()
        transport.pause_reading()
        peer = Peer(address, chain, session_is_sound=True)
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

    def eof_received(self) -> bool:
        return False  # TLS knows no half-open connection

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

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._ended:
            return
        self._ended = True
        if self._transport is not None:
            self._front.lost(self)
        if self._inner is not None:
            self._inner.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


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


def _plain(host: str) -> str:
    """An IPv4 address as such, also where a dual-stack socket shows it inside an IPv6 one."""
    address = ipaddress.ip_address(host.partition("%")[0])
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(inner or address)


def _grpc_spelling(host: str, port: int) -> str:
    """An address as gRPC writes it, which limits and logs go by."""
    plain = _plain(host)
    return f"ipv6:%5B{plain}%5D:{port}" if ":" in plain else f"ipv4:{plain}:{port}"
