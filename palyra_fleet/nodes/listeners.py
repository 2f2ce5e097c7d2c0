"""The two gRPC listeners: enrolment, for whoever has a code, and node, for whoever has a
certificate of the fleet.

Both speak TLS 1.3 only, with the same certificate. The node listener requires a client certificate
in the handshake; there is no switch for that. TLS is done by `tls_front`, in front of a gRPC server
that listens on loopback and takes only what came through it. Before either is opened,
`tls_self_test` sees with real handshakes that bad certificates, older TLS and resumed sessions fail
here and now.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.nodes.errors import ListenError
from palyra_fleet.nodes.gate import Gate
from palyra_fleet.nodes.node_rpc import NodeListener, NodeRpcServiceImpl
from palyra_fleet.nodes.server_certificate import CertificateSource, ServerCertificate
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.nodes.tls_front import Arrivals, TlsFront
from palyra_fleet.nodes.tls_port import FrontLimits
from palyra_fleet.nodes.tls_self_test import GrpcDialect, SelfTestAuthority, Yes, tls_self_test
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import node_pb2_grpc

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_WINDOW_BYTES: Final = 256 * 1024
_MAX_METADATA_BYTES: Final = 16 * 1024
_MAX_STREAMS_PER_CONNECTION: Final = 64
_IDLE_CONNECTION_MS: Final = {
    NodeListener.ENROLMENT: 60_000,
    NodeListener.NODE: 10 * 60_000,
}
_ENROLMENT_LIMITS: Final = FrontLimits(
    in_all=4_096, per_source=256, handshakes=512, handshakes_per_source=64
)
"""Anybody may connect there, and few do: a pairing is three calls on one connection."""
_CUT_AFTER_S: Final = 0.5
"""What was just answered (a device that revokes itself) leaves before its connection is cut."""
_STOP_WITHIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class NodeListenerSettings:
    """Where to listen: addresses, no names, and ports. Port 0 takes a free one."""

    enrolment: tuple[str, int] = ("127.0.0.1", 7742)
    node: tuple[str, int] = ("127.0.0.1", 7743)


@dataclass(frozen=True, slots=True)
class NodeListeners:
    """The listeners while they are open."""

    enrolment_port: int
    node_port: int
    certificate: ServerCertificate
    fronts: tuple[TlsFront, ...] = ()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        service: NodeService,
        source: CertificateSource,
        settings: NodeListenerSettings,
        clock: Callable[[], int],
    ) -> AsyncIterator["NodeListeners"]:
        """Serve nodes until the block ends. Raises ListenError."""
        certificate = ServerCertificate(source)
        gate = Gate(service.identity, clock)
        arrivals = Arrivals()
        async with AsyncExitStack() as serving:
            await self_test()
            fronts: list[TlsFront] = []
            ports = {}
            for listener in NodeListener:
                implementation = NodeRpcServiceImpl(service, gate, listener, arrivals)
                where = settings.node if listener is NodeListener.NODE else settings.enrolment
                front, ports[listener] = await serving.enter_async_context(
                    _served(listener, implementation, arrivals, certificate, where)
                )
                fronts.append(front)
            serving.callback(service.identity.subscribe(_Cutter(fronts).revoked))
            renewing = spawn(certificate.keep_fresh(), "node listeners' certificate")
            serving.callback(renewing.cancel)
            # streams end with a reason of ours before the servers stop
            serving.callback(service.close)
            enrolment, node = ports[NodeListener.ENROLMENT], ports[NodeListener.NODE]
            yield cls(enrolment, node, certificate, tuple(fronts))


async def self_test() -> None:
    """See with real handshakes that TLS refuses what it must, on a listener made for it."""
    authority = SelfTestAuthority(now_unix_ms())
    arrivals = Arrivals()
    serving = serve_tls(
        lambda server: server.add_generic_rpc_handlers([Yes(arrivals)]),
        arrivals,
        partial(ServerCertificate(authority).context, with_clients=True),
        server_options(NodeListener.NODE),
        ("127.0.0.1", 0),
    )
    async with serving as (_, port):
        await tls_self_test(port, authority, GrpcDialect())


def server_options(listener: NodeListener) -> list[tuple[str, int]]:
    """The channel arguments of a listener."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
        ("grpc.max_connection_idle_ms", _IDLE_CONNECTION_MS[listener]),
        # a fixed window: no probe rides along with every message, and no peer makes it grow
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", _WINDOW_BYTES),
        # a peer that is gone is noticed within half a minute; one may ask us every five seconds
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 3),
        # two processes on one port would share its connections without knowing
        ("grpc.so_reuseport", 0),
    ]


class _Cutter:
    """Cuts the connections of certificates that are no longer good, a moment later."""

    def __init__(self, fronts: Sequence[TlsFront]) -> None:
        self._fronts = fronts

    def revoked(self, notice: RevocationNotice) -> None:
        asyncio.get_running_loop().call_later(_CUT_AFTER_S, self._cut, notice.fingerprints)

    def _cut(self, fingerprints: Iterable[str]) -> None:
        for front in self._fronts:
            front.cut(fingerprints)


@asynccontextmanager
async def serve_tls(
    add_handlers: Callable[[grpc.aio.Server], None],
    arrivals: Arrivals,
    context: Callable[[], ssl.SSLContext],
    options: Sequence[tuple[str, int]],
    where: tuple[str, int],
    limits: FrontLimits | None = None,
) -> AsyncIterator[tuple[TlsFront, int]]:
    """A gRPC server on loopback and our TLS in front of it; the front and its port. Raises
    OSError."""
    server = grpc.aio.server(options=list(options))
    add_handlers(server)
    inner_port = server.add_insecure_port("127.0.0.1:0")
    front = TlsFront(context, arrivals, inner_port, limits)
    await server.start()
    try:
        port = await front.open(*where)
        try:
            yield front, port
        finally:
            await front.stop_listening()
    finally:
        await server.stop(_STOP_WITHIN_S)
        await front.close()


@asynccontextmanager
async def _served(
    listener: NodeListener,
    implementation: NodeRpcServiceImpl,
    arrivals: Arrivals,
    certificate: ServerCertificate,
    where: tuple[str, int],
) -> AsyncIterator[tuple[TlsFront, int]]:
    """One listener. Raises ListenError."""
    host = _literal(where[0])
    serving = serve_tls(
        partial(node_pb2_grpc.add_NodeServiceServicer_to_server, implementation),
        arrivals,
        partial(certificate.context, with_clients=listener is NodeListener.NODE),
        server_options(listener),
        (host, where[1]),
        _ENROLMENT_LIMITS if listener is NodeListener.ENROLMENT else None,
    )
    async with AsyncExitStack() as stack:
        try:
            served = await stack.enter_async_context(serving)
        except OSError as error:
            text = f"{host}:{where[1]}: cannot listen there ({listener} listener)"
            raise ListenError(text) from error
        yield served


def _literal(host: str) -> str:
    """A literal address. Names are not taken: they may mean several."""
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise ListenError(f"{host}: the node listeners take an address, not a name") from None
