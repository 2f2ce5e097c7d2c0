"""The two gRPC listeners: enrolment, for whoever has a code, and node, for whoever has a
certificate of the fleet.

Both speak TLS 1.3 only, with the same certificate. The node listener requires a client certificate
in the handshake; there is no switch for that. Before either is opened, `tls_self_test` sees with
real handshakes that bad certificates, older TLS and resumed sessions fail here and now.
"""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.nodes.connections import PeerTable, cut
from palyra_fleet.nodes.errors import ListenError
from palyra_fleet.nodes.gate import Gate
from palyra_fleet.nodes.node_rpc import NodeListener, NodeRpcServiceImpl
from palyra_fleet.nodes.server_certificate import CertificateSource, ServerCertificate
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.nodes.tls_self_test import tls_self_test
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import node_pb2_grpc

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_MAX_METADATA_BYTES: Final = 16 * 1024
_MAX_STREAMS_PER_CONNECTION: Final = 64
_HANDSHAKE_WITHIN_MS: Final = 10_000
_IDLE_CONNECTION_MS: Final = {
    NodeListener.ENROLMENT: 60_000,
    NodeListener.NODE: 10 * 60_000,
}
_CUT_AFTER_S: Final = 0.5
"""What was just answered (a device that revokes itself) leaves before its connection is cut."""
_STOP_WITHIN_S: Final = 2.0

_log = logging.getLogger(__name__)


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
        peers = PeerTable()
        async with AsyncExitStack() as serving:
            await tls_self_test(server_options(NodeListener.NODE))
            ports = {}
            for listener in NodeListener:
                implementation = NodeRpcServiceImpl(service, gate, listener, peers)
                where = settings.node if listener is NodeListener.NODE else settings.enrolment
                ports[listener] = await serving.enter_async_context(
                    _served(listener, implementation, certificate, where)
                )
            cutter = _Cutter(peers, frozenset(ports.values()))
            serving.callback(service.identity.subscribe(cutter.revoked))
            renewing = spawn(certificate.keep_fresh(), "node listeners' certificate")
            serving.callback(renewing.cancel)
            # streams end with a reason of ours before the servers stop
            serving.callback(service.close)
            yield cls(ports[NodeListener.ENROLMENT], ports[NodeListener.NODE], certificate)


def server_options(listener: NodeListener) -> list[tuple[str, int]]:
    """The channel arguments of a listener."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", _MAX_STREAMS_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_WITHIN_MS),
        ("grpc.max_connection_idle_ms", _IDLE_CONNECTION_MS[listener]),
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

    def __init__(self, peers: PeerTable, local_ports: frozenset[int]) -> None:
        self._peers = peers
        self._local_ports = local_ports

    def revoked(self, notice: RevocationNotice) -> None:
        addresses = self._peers.take(notice.fingerprints)
        if addresses:
            loop = asyncio.get_running_loop()
            loop.call_later(_CUT_AFTER_S, cut, addresses, self._local_ports)


@asynccontextmanager
async def _served(
    listener: NodeListener,
    implementation: NodeRpcServiceImpl,
    certificate: ServerCertificate,
    where: tuple[str, int],
) -> AsyncIterator[int]:
    """One listener, and its port."""
    server = grpc.aio.server(options=server_options(listener))
    node_pb2_grpc.add_NodeServiceServicer_to_server(implementation, server)
    address = f"{_bracketed(where[0])}:{where[1]}"
    credentials = certificate.credentials(with_clients=listener is NodeListener.NODE)
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ListenError(f"{address}: cannot listen there ({listener} listener)") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(_STOP_WITHIN_S)


def _bracketed(host: str) -> str:
    """A literal address as gRPC wants it. Names are not taken: they may mean several."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ListenError(f"{host}: the node listeners take an address, not a name") from None
    return f"[{address}]" if address.version == 6 else str(address)
