"""The API for workers and proxies on other machines: HTTP/1.1 inside mutual TLS 1.3.

TLS is `TlsPort`'s: no tickets, a client certificate required and verified against the fleet's
authorities, connections and handshakes bounded. Behind it every request passes `DeviceGate`, which
asks the identity positively whether the certificate still belongs to a paired device; there is no
list of what is revoked that could be out of date. A revocation resets the device's connections and
cancels what they wait for. Nothing listens before `self_test` has seen that bad certificates fail.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from aiohttp import web

from palyra_fleet.api.protocol import FleetConnection
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.identity.ports import NodeIdentity
from palyra_fleet.nodes.errors import ListenError
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.nodes.server_certificate import CertificateSource, ServerCertificate
from palyra_fleet.nodes.tls_port import FrontLimits, SecuredSide, TlsPort
from palyra_fleet.nodes.tls_self_test import HttpDialect, SelfTestAuthority, tls_self_test
from palyra_fleet.tasks import spawn

ALPN: Final = "http/1.1"
_CLOSE_WITHIN_S: Final = 2.0
LIMITS: Final = FrontLimits(in_all=8_192, per_source=4_096, handshakes=256, per_certificate=1_024)
"""Of a worker host, which may run hundreds of workers with two or three connections each."""


class RemoteIdentity(NodeIdentity, CertificateSource, Protocol):
    """What `IdentityManager` is to this listener."""


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Where to listen (an address, no name; port 0 takes a free one), and for whom."""

    where: tuple[str, int]
    identity: RemoteIdentity
    clock: Callable[[], int] = now_unix_ms
    limits: FrontLimits = field(default=LIMITS)


class ApiPort(TlsPort):
    """TLS in front of one application."""

    alpn = ALPN

    def __init__(
        self, certificate: ServerCertificate, runner: web.AppRunner, limits: FrontLimits
    ) -> None:
        super().__init__(partial(certificate.context, with_clients=True), limits)
        self._runner = runner

    def side(self, source: str) -> SecuredSide:
        return _ApiSide(self, source, self._runner)


class _ApiSide(SecuredSide):
    """Hands what arrives to aiohttp's connection, and what happens to the connection."""

    def __init__(self, port: ApiPort, source: str, runner: web.AppRunner) -> None:
        super().__init__(port, source)
        self._runner = runner
        self._connection: FleetConnection | None = None
        self._early = bytearray()

    def serve(self, transport: asyncio.Transport, peer: Peer) -> None:
        connection = FleetConnection(self._runner, None, peer)
        connection.connection_made(transport)
        self._connection = connection
        if self._early:
            connection.data_received(bytes(self._early))
            self._early.clear()
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.data_received(data)
        else:  # came with the end of the handshake
            self._early += data

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()

    def ended(self) -> None:
        if self._connection is not None:
            self._connection.connection_lost(ConnectionResetError("the connection is gone"))


@asynccontextmanager
async def served_remotely(
    application: web.Application, settings: RemoteSettings
) -> AsyncIterator[int]:
    """Serve until the block ends; the port. Raises ListenError or TlsUnsound."""
    host = _literal(settings.where[0])
    await self_test()
    certificate = ServerCertificate(settings.identity, ALPN)
    async with AsyncExitStack() as serving:
        port = await serving.enter_async_context(
            _listening(application, certificate, (host, settings.where[1]), settings.limits)
        )

        def revoked(notice: RevocationNotice) -> None:
            port.cut(notice.fingerprints)

        serving.callback(settings.identity.subscribe(revoked))
        renewing = spawn(certificate.keep_fresh(), "API listener's certificate")
        serving.callback(renewing.cancel)
        yield port.number


@dataclass(frozen=True, slots=True)
class _Listening:
    number: int
    cut: Callable[[frozenset[str]], int]


@asynccontextmanager
async def _listening(
    application: web.Application,
    certificate: ServerCertificate,
    where: tuple[str, int],
    limits: FrontLimits,
) -> AsyncIterator[_Listening]:
    # what a lost connection waited for is cancelled; commands that were begun are finished
    runner = web.AppRunner(
        application,
        handle_signals=False,
        shutdown_timeout=_CLOSE_WITHIN_S,
        handler_cancellation=True,
    )
    await runner.setup()
    port = ApiPort(certificate, runner, limits)
    try:
        try:
            number = await port.open(*where)
        except OSError as error:
            text = f"{where[0]}:{where[1]}: cannot listen there (API for other machines)"
            raise ListenError(text) from error
        yield _Listening(number, port.cut)
    finally:
        await port.stop_listening()
        await runner.cleanup()
        await port.close()


async def self_test() -> None:
    """See with real handshakes that TLS refuses what it must, on a listener made for it."""
    authority = SelfTestAuthority(now_unix_ms())

    async def yes(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(text="yes")

    application = web.Application()
    application.router.add_get("/", yes)
    certificate = ServerCertificate(authority, ALPN)
    async with _listening(application, certificate, ("127.0.0.1", 0), LIMITS) as listening:
        await tls_self_test(listening.number, authority, HttpDialect())


def _literal(host: str) -> str:
    """A literal address. Names are not taken: they may mean several."""
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise ListenError(f"{host}: this listener takes an address, not a name") from None
