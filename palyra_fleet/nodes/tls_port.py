"""A listener's TLS, for whatever is served behind it.

TLS 1.3 without tickets: nothing can be resumed, and every handshake checks the whole chain. A
`TlsPort` bounds connections in all, from one address and of one certificate, and handshakes that
are not finished; it asks for its context at every handshake, so a new certificate or root is used
from the next one on. Each connection becomes a `SecuredSide` that knows its `Peer`; `cut` resets
those that came with a certificate that is no longer good. Bytes before the handshake is over are
read by nobody.
"""

import asyncio
import hashlib
import ipaddress
import logging
import ssl
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from palyra_fleet.identity.guess_limits import source_of
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.nodes.tls_buffers import keep_tls_buffers_small
from palyra_fleet.tasks import spawn

HANDSHAKE_WITHIN_S: Final = 10.0
MAX_CONNECTIONS: Final = 20_000
MAX_PER_SOURCE: Final = 10_000
MAX_HANDSHAKES: Final = 1024
MAX_HANDSHAKES_PER_SOURCE: Final = 512
MAX_ACCEPTED_AT_ONCE: Final = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Connections at once, in all, from one source (an address; of IPv6 the /64) and of one
    certificate, and handshakes that are not finished, in all and from one source.
    `per_certificate` None: no bound of its own. `accepted_at_once` is how many new connections one
    pass of the loop takes and, where nobody says otherwise, how many may wait in the kernel."""

    in_all: int = MAX_CONNECTIONS
    per_source: int = MAX_PER_SOURCE
    handshakes: int = MAX_HANDSHAKES
    handshakes_per_source: int = MAX_HANDSHAKES_PER_SOURCE
    handshake_within_s: float = HANDSHAKE_WITHIN_S
    per_certificate: int | None = None
    accepted_at_once: int = MAX_ACCEPTED_AT_ONCE


class TlsPort(ABC):
    """One listener. `open` it, `close` it; `context` is asked at every handshake. `alpn` is the one
    protocol that a session must have agreed on; None where none is offered."""

    alpn: str | None

    def __init__(
        self, context: Callable[[], ssl.SSLContext], limits: FrontLimits | None = None
    ) -> None:
        self.context = context
        self.limits = limits or FrontLimits()
        self._server: asyncio.Server | None = None
        self._open: set[SecuredSide] = set()
        self._per_source: Counter[str] = Counter()
        self._per_certificate: Counter[str] = Counter()
        self._handshakes: Counter[str] = Counter()

    @abstractmethod
    def side(self, source: str) -> "SecuredSide":
        """What takes over the connection once its handshake is done."""

    @property
    def connections(self) -> int:
        """How many are open, handshakes done."""
        return len(self._open)

    @property
    def handshakes(self) -> int:
        """How many are not finished."""
        return self._handshakes.total()

    async def open(self, host: str, port: int) -> int:
        """Listen; answers the port. Raises OSError."""
        keep_tls_buffers_small()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Accepted(self),
            host,
            port,
            backlog=self.limits.accepted_at_once,
            reuse_port=False,
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
        for side in tuple(self._open):
            side.abort()

    def cut(self, fingerprints: Iterable[str]) -> int:
        """Reset the connections that came with these certificates; answers how many."""
        wanted = frozenset(fingerprints)
        found = [side for side in self._open if side.fingerprint in wanted]
        for side in found:
            side.abort()
        return len(found)

    async def accept(self, transport: asyncio.Transport, source: str, address: str) -> None:
        """One connection, from its first byte to whoever serves it."""
        limits = self.limits
        if (
            len(self._open) + self.handshakes >= limits.in_all
            or self._per_source[source] >= limits.per_source
            or self.handshakes >= limits.handshakes
            or self._handshakes[source] >= limits.handshakes_per_source
        ):
            transport.abort()
            return
        self._per_source[source] += 1
        self._handshakes[source] += 1
        side = self.side(source)
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                side,
                self.context(),
                server_side=True,
                ssl_handshake_timeout=limits.handshake_within_s,
                ssl_shutdown_timeout=1.0,
            )
        except (OSError, asyncio.IncompleteReadError) as error:
            self.handshake_failed(error)
            self._forget_source(source)
            transport.abort()
            return
        finally:
            self._handshakes -= Counter((source,))  # and forgets those that have none left
        if secured is None:  # it ended while it was being secured
            self._forget_source(source)
            return
        side.begin(secured, address)

    def handshake_failed(self, error: Exception) -> None:
        """Somebody did not get as far as a session."""
        _log.debug("a handshake failed: %s", type(error).__name__)

    def took(self, side: "SecuredSide") -> None:
        self._open.add(side)

    def has_room_for(self, fingerprint: str) -> bool:
        """Count a connection of this certificate, if there may be one more."""
        most = self.limits.per_certificate
        if most is not None and self._per_certificate[fingerprint] >= most:
            return False
        self._per_certificate[fingerprint] += 1
        return True

    def lost(self, side: "SecuredSide") -> None:
        self._open.discard(side)
        self._forget_source(side.source)
        if side.fingerprint:
            self._per_certificate[side.fingerprint] -= 1
            if self._per_certificate[side.fingerprint] <= 0:
                del self._per_certificate[side.fingerprint]

    def _forget_source(self, source: str) -> None:
        self._per_source[source] -= 1
        if self._per_source[source] <= 0:
            del self._per_source[source]


class _Accepted(asyncio.Protocol):
    """A connection before TLS: read by nobody until the handshake takes it over."""

    def __init__(self, port: TlsPort) -> None:
        self._port = port
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
        self._securing = spawn(
            self._port.accept(transport, source_of(address), address), "TLS handshake"
        )


class SecuredSide(asyncio.Protocol, ABC):
    """A connection after its handshake. Reads nothing until `serve` has somebody for it."""

    def __init__(self, port: TlsPort, source: str) -> None:
        self.source = source
        self.fingerprint = ""
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._ended = False

    def begin(self, transport: asyncio.Transport, address: str) -> None:
        """After the handshake: who it is, and whether this is a session we take."""
        self._transport = transport
        self._port.took(self)
        secured: ssl.SSLObject = transport.get_extra_info("ssl_object")
        sound = (
            secured.version() == "TLSv1.3"
            and not secured.session_reused
            and secured.selected_alpn_protocol() == self._port.alpn
        )
        if not sound or self._ended:
            self.abort()
            return
        chain = tuple(secured.get_unverified_chain() or ())
        if chain:
            fingerprint = hashlib.sha256(chain[0]).hexdigest()
            if not self._port.has_room_for(fingerprint):
                self.abort()
                return
            self.fingerprint = fingerprint
        transport.pause_reading()
        self.serve(transport, Peer(address, chain, session_is_sound=True))

    @abstractmethod
    def serve(self, transport: asyncio.Transport, peer: Peer) -> None:
        """Take the connection over; `resume_reading` when somebody listens."""

    def ended(self) -> None:
        """The connection is gone; whoever served it lets go."""

    def eof_received(self) -> bool:
        return False  # TLS knows no half-open connection

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._ended:
            return
        self._ended = True
        if self._transport is not None:
            self._port.lost(self)
        self.ended()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _plain(host: str) -> str:
    """An IPv4 address as such, also where a dual-stack socket shows it inside an IPv6 one."""
    address = ipaddress.ip_address(host.partition("%")[0])
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(inner or address)


def _grpc_spelling(host: str, port: int) -> str:
    """An address as gRPC writes it, which limits and logs go by."""
    plain = _plain(host)
    return f"ipv6:%5B{plain}%5D:{port}" if ":" in plain else f"ipv4:{plain}:{port}"
