"""Mutual TLS in front of the proxy: the worker's certificate names it, before any HTTP.

TLS 1.3 only and without tickets, so that no session is resumed and every handshake checks the whole
chain. mitmproxy's own request for client certificates does not verify them, so TLS ends here. What
OpenSSL let through is checked once more: chain, times, and the exact profile that the fleet gives
to devices (key, EKU, the one URI SAN). Whether the certificate is revoked, and which lease it may
speak for, is in the fleet's view and asked at every request. The proxy shows a certificate that its
own root signed, which workers trust already.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from palyra_egress.clock import now_unix_ms
from palyra_egress.errors import OperatorMustAct
from palyra_egress.proxy.bounds.accepting import ACCEPTED_AT_ONCE, with_long_queue
from palyra_egress.proxy.channels.carry import Carry, TurnedAway
from palyra_egress.proxy.channels.channel import Channel, ChannelKind
from palyra_egress.proxy.channels.listener_certificate import Shown
from palyra_egress.reasons import Reason
from palyra_fleet.identity.client_certificate import (
    CertificateFlaw,
    verify_client_certificate,
)
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.nodes.tls_port import FrontLimits, SecuredSide, TlsPort
from palyra_fleet.tasks import spawn
from palyra_fleet.trusted_files import TrustedLook, UntrustedFile, look_at, read_trusted

READ_BUFFER_BYTES: Final = 1 << 17
MAX_ROOTS_BYTES: Final = 1 << 20
MOST_CONNECTIONS: Final = 4_096
MOST_HANDSHAKES: Final = 128
HANDSHAKES_PER_SOURCE: Final = 1_024

_HUNG_UP: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError)

_log = logging.getLogger(__name__)


class WorkerRootsError(OperatorMustAct):
    """The file of the fleet's roots holds no certificate or a damaged one, or is not ours alone."""


@dataclass(frozen=True, slots=True)
class WorkerTlsSettings:
    """Where the listener is, whose certificates it takes (`roots`, PEM, the fleet's authority; read
    again at every handshake that finds it changed) under which trust domain, and the names that its
    own certificate has beside the address."""

    host: str
    port: int
    roots: Path
    trust_domain: str = "palyra.internal"
    names: tuple[str, ...] = ("localhost",)


def read_roots(path: Path) -> tuple[x509.Certificate, ...]:
    """Raises WorkerRootsError or OSError."""
    try:
        content, _ = read_trusted(path, MAX_ROOTS_BYTES)
        found = tuple(x509.load_pem_x509_certificates(content))
    except UntrustedFile as error:
        raise WorkerRootsError(str(error)) from error
    except ValueError as error:
        raise WorkerRootsError(
            f"{path}: expected certificates in PEM, the fleet's roots"
        ) from error
    if not found:
        raise WorkerRootsError(f"{path}: holds no certificate; expected the fleet's roots")
    return found


class WorkerTlsListener(TlsPort):
    """The listener. `shown` gives what to show at a handshake; another one is another object."""

    alpn = None

    def __init__(
        self,
        settings: WorkerTlsSettings,
        carry: Carry,
        turned_away: TurnedAway,
        shown: Callable[[], Shown],
        handshake_within_s: float,
    ) -> None:
        limits = FrontLimits(
            in_all=MOST_CONNECTIONS,
            per_source=HANDSHAKES_PER_SOURCE,
            handshakes=MOST_HANDSHAKES,
            handshake_within_s=handshake_within_s,
            accepted_at_once=ACCEPTED_AT_ONCE,
        )
        super().__init__(self._context_or_nobody, limits)
        self.settings = settings
        self.carry = carry
        self.turned_away = turned_away
        self.roots: tuple[x509.Certificate, ...] = ()
        self._shown = shown
        self.problem: str | None = None
        self._made: tuple[TrustedLook, Shown, ssl.SSLContext] | None = None
        self._current_context()

    async def open(self, host: str, port: int) -> int:
        taken = await super().open(host, port)
        if self._server is not None:
            with_long_queue(self._server)
        return taken

    def side(self, source: str) -> SecuredSide:
        return _WorkerSide(self, source)

    def handshake_failed(self, error: Exception) -> None:
        """Whoever spoke TLS and was not let in. Who hung up, or asked only whether somebody
        listens, was turned away by nobody."""
        super().handshake_failed(error)
        if isinstance(error, ssl.SSLError) and not isinstance(error, _HUNG_UP):
            self.turned_away(Reason.NO_IDENTITY)

    def _context_or_nobody(self) -> ssl.SSLContext:
        """Raises OSError, which ends the handshake: no roots, nobody."""
        try:
            made = self._current_context()
        except (OSError, WorkerRootsError) as error:
            if self.problem is None:
                _log.error("nobody gets in over TLS: %s", error)
            self.problem = str(error)
            raise OSError(self.problem) from error
        self.problem = None
        return made

    def _current_context(self) -> ssl.SSLContext:
        """One for as long as neither the fleet's roots nor our own certificate change."""
        found, shown = look_at(self.settings.roots), self._shown()
        if self._made is None or self._made[:2] != (found, shown):
            self.roots = read_roots(self.settings.roots)
            self._made = (found, shown, make_context(self.roots, shown.pem))
        return self._made[2]


def make_context(roots: Sequence[x509.Certificate], server_pem: bytes) -> ssl.SSLContext:
    """TLS 1.3, no tickets, a certificate of the fleet's required. There is no switch."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    context.verify_mode = ssl.CERT_REQUIRED
    pem = b"".join(root.public_bytes(serialization.Encoding.PEM) for root in roots)
    context.load_verify_locations(cadata=pem.decode())
    descriptor = os.memfd_create("palyra-worker-tls")
    try:
        os.write(descriptor, server_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


class _Streams(asyncio.StreamReaderProtocol):
    """The streams of a secured connection; its side hears of the end."""

    def __init__(self, side: SecuredSide, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._side = side

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._side.connection_lost(exc)


class _WorkerSide(SecuredSide):
    """After the handshake: who it is, and then the proxy."""

    def __init__(self, listener: WorkerTlsListener, source: str) -> None:
        super().__init__(listener, source)
        self._listener = listener
        self._carrying: asyncio.Task[None] | None = None
        self._early: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self._early.append(data)  # came in one piece with the end of the handshake

    def serve(self, transport: asyncio.Transport, peer: Peer) -> None:
        settings = self._listener.settings
        leaf = verify_client_certificate(
            peer.chain_der, self._listener.roots, settings.trust_domain, now_unix_ms()
        )
        if isinstance(leaf, CertificateFlaw):
            _log.info("a worker's certificate was refused: %s", leaf.value)
            self._listener.turned_away(Reason.BAD_CREDENTIALS)
            transport.abort()
            return
        channel = Channel(
            ChannelKind.CERTIFICATE,
            worker_id=leaf.device_id,
            certificate=leaf.fingerprint,
            good_until_unix_ms=leaf.not_after_unix_ms,
        )
        reader = asyncio.StreamReader(READ_BUFFER_BYTES)
        streams = _Streams(self, reader)
        transport.set_protocol(streams)
        streams.connection_made(transport)
        for data in self._early:
            streams.data_received(data)
        self._early.clear()
        writer = asyncio.StreamWriter(transport, streams, reader, asyncio.get_running_loop())
        transport.resume_reading()
        self._carrying = spawn(
            self._listener.carry(reader, writer, channel), "worker connection over TLS"
        )
