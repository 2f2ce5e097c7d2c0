"""The TLS of the node listeners: what a handshake may be, and what is behind it."""

import asyncio
import contextlib
import socket
import ssl
from asyncio import sslproto
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.nodes.errors import TlsUnsound
from palyra_fleet.nodes.listeners import self_test
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.nodes.server_certificate import ServerCertificate
from palyra_fleet.nodes.tls_buffers import BUFFER_BYTES
from palyra_fleet.nodes.tls_front import Arrivals
from palyra_fleet.nodes.tls_port import FrontLimits
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import node_pb2, node_pb2_grpc
from tests.fakes.identity_world import QUIET
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import SERVER_NAME, Node, NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice

NO_CERTIFICATE = "node RPC request is missing a client certificate"


async def refused(call: Any) -> tuple[str, str]:
    """Status and text of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


def handshake(
    world: NodeWorld, listener: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[str, bool, ssl.SSLSession | None] | None:
    """TLS version, whether the session was resumed, and the session; None if refused."""
    address = ("127.0.0.1", world.port(listener))
    try:
        with (
            socket.create_connection(address, timeout=60) as plain,
            context.wrap_socket(plain, server_hostname=SERVER_NAME, session=session) as found,
        ):
            found.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            if not found.recv(1):
                return None
            return found.version() or "", bool(found.session_reused), found.session
    except OSError:
        return None


def tls_context(world: NodeWorld, node: Node, tmp_path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=world.authority.trust_bundle_pem)
    file = tmp_path / "client.pem"
    file.write_bytes(node.material.chain_pem + node.material.key_pem)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.parametrize("listener", ["node", "enrolment"])
async def test_tls_below_1_3_and_resumption_are_refused(
    world: NodeWorld, node: Node, tmp_path: Path, listener: str
) -> None:
    context = tls_context(world, node, tmp_path)
    first = await asyncio.to_thread(handshake, world, listener, context)
    assert first is not None
    assert (first[0], first[1]) == ("TLSv1.3", False)
    assert first[2] is not None
    again = await asyncio.to_thread(handshake, world, listener, context, first[2])
    assert again is not None
    assert again[1] is False, "a session was resumed"
    old = tls_context(world, node, tmp_path)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await asyncio.to_thread(handshake, world, listener, old) is None


def test_a_call_that_did_not_come_through_our_tls_has_no_peer() -> None:
    arrivals = Arrivals()
    peer = Peer("ipv4:192.0.2.1:7", (b"leaf",), session_is_sound=True)
    arrivals.add(4711, peer)
    assert arrivals.peer_of("ipv4:127.0.0.1:4711") is peer
    for other in ("ipv4:127.0.0.1:4712", "ipv4:192.0.2.1:4711", "unix:4711", "", "ipv4:127.0.0.1:"):
        found = arrivals.peer_of(other)
        assert (found.session_is_sound, found.chain_der) == (False, ())
    arrivals.remove(4711)
    assert not arrivals.peer_of("ipv4:127.0.0.1:4711").session_is_sound


async def test_the_inner_server_takes_nothing_that_did_not_come_through_our_tls(
    world: NodeWorld, node: Node
) -> None:
    """Somebody on this machine who finds its port speaks to it without TLS."""
    for front in world.listeners.fronts:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.inner_port}") as channel:
            calls = node_pb2_grpc.NodeServiceStub(channel)
            expected = ("UNAUTHENTICATED", NO_CERTIFICATE)
            begin = node_pb2.BeginPairingSessionRequest(v=1, client_kind="node")
            assert await refused(calls.BeginPairingSession(begin)) == expected
            if front is world.listeners.fronts[-1]:
                assert await refused(calls.RegisterNode(node.registration())) == expected


async def test_hundreds_of_handshakes_at_once_and_renewals_between_harm_nothing(
    world: NodeWorld, node: Node
) -> None:
    """A server that is renewed while many shake hands is where a library once gave way."""

    async def once(number: int) -> bool:
        if number % 10 == 0:
            world.listeners.certificate.renew_if_due()
        async with world.channel(node.material) as channel:
            calls = node_pb2_grpc.NodeServiceStub(channel)
            return bool((await calls.RegisterNode(node.registration())).accepted)

    for _ in range(2):
        assert all(await asyncio.gather(*(once(number) for number in range(150))))


async def test_the_server_certificate_is_renewed_without_a_dropped_connection(
    tmp_path: Path,
) -> None:
    settings = IdentitySettings(reap_every_ms=QUIET, server_life_ms=60_000)
    async with node_world(tmp_path / "fleet", identity=settings) as world:
        node = await world.pair(PairingDevice(ulid(1)))
        async with node.calls() as calls:
            stream = calls.StreamNodeEvents()
            await stream.write(node.event())
            await stream.read()
            before = world.listeners.certificate.certificate_pem
            assert not world.listeners.certificate.renew_if_due()
            world.clock.ahead_ms += 41_000
            assert world.listeners.certificate.renew_if_due()
            context = tls_context(world, node, tmp_path)
            presented = await asyncio.to_thread(_presented, world, context)
            assert presented == world.listeners.certificate.certificate_pem != before
            await stream.write(node.event())
            assert (await stream.read()).accepted
            assert (await calls.RegisterNode(node.registration())).accepted


def _presented(world: NodeWorld, context: ssl.SSLContext) -> str:
    with (
        socket.create_connection(("127.0.0.1", world.port("node")), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as found,
    ):
        certificate = found.getpeercert(binary_form=True)
        assert certificate is not None
        leaf = x509.load_der_x509_certificate(certificate)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(names.get_values_for_type(x509.DNSName)) >= {"localhost", SERVER_NAME}
        return ssl.DER_cert_to_PEM_cert(certificate)


async def test_a_new_authority_is_trusted_by_open_listeners(world: NodeWorld, node: Node) -> None:
    await world.identity.rotate_authority("test", "anna")
    newer = await world.pair(PairingDevice(ulid(7)))
    for one in (newer, node):
        async with one.calls() as calls:
            assert (await calls.RegisterNode(one.registration())).accepted


async def test_the_self_test_passes_here() -> None:
    await self_test()


async def test_the_self_test_sees_a_listener_that_asks_for_no_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = ServerCertificate.context

    def careless(self: ServerCertificate, *, with_clients: bool) -> ssl.SSLContext:
        del with_clients
        return real(self, with_clients=False)

    monkeypatch.setattr(ServerCertificate, "context", careless)
    with pytest.raises(TlsUnsound, match="without a certificate"):
        await self_test()


async def test_the_self_test_sees_sessions_that_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ServerCertificate.context

    def with_tickets(self: ServerCertificate, *, with_clients: bool) -> ssl.SSLContext:
        context = real(self, with_clients=with_clients)
        context.options &= ~ssl.OP_NO_TICKET
        context.num_tickets = 2
        return context

    monkeypatch.setattr(ServerCertificate, "context", with_tickets)
    with pytest.raises(TlsUnsound, match="resumed"):
        await self_test()


async def test_a_resumed_session_is_cut_also_where_tickets_were_given(
    world: NodeWorld, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line: what a library gave away is still not taken."""
    for with_clients in (True, False):
        context = world.listeners.certificate.context(with_clients=with_clients)
        context.options &= ~ssl.OP_NO_TICKET
        context.num_tickets = 2
    for listener in ("node", "enrolment"):
        client = tls_context(world, node, tmp_path)
        first = await asyncio.to_thread(handshake, world, listener, client)
        assert first is not None and first[2] is not None and first[2].has_ticket
        assert await asyncio.to_thread(handshake, world, listener, client, first[2]) is None


@pytest.mark.parametrize("with_clients", [True, False])
def test_a_context_speaks_tls_1_3_without_tickets(world: NodeWorld, with_clients: bool) -> None:
    context = world.listeners.certificate.context(with_clients=with_clients)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0
    assert context.verify_mode is (ssl.CERT_REQUIRED if with_clients else ssl.CERT_NONE)
    assert world.listeners.certificate.context(with_clients=with_clients) is context


async def test_a_client_without_http2_gets_nowhere(
    world: NodeWorld, node: Node, tmp_path: Path
) -> None:
    client = tls_context(world, node, tmp_path)
    client.set_alpn_protocols(["http/1.1"])
    assert await asyncio.to_thread(handshake, world, "node", client) is None


async def test_a_handshake_that_does_not_end_is_given_up_and_holds_no_place(
    world: NodeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = world.listeners.fronts[0]
    monkeypatch.setattr(front, "limits", FrontLimits(handshakes=1, handshake_within_s=0.2))
    port = world.port("enrolment")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    second, other = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60):
        for ended in (second, reader):
            with contextlib.suppress(ConnectionError):
                assert await ended.read(1) == b""
    for one in (writer, other):
        one.close()
    assert front.handshakes == 0


async def test_one_address_cannot_hold_every_place_for_handshakes(
    world: NodeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = world.listeners.fronts[0]
    limits = FrontLimits(handshakes=4, handshakes_per_source=2, handshake_within_s=20)
    monkeypatch.setattr(front, "limits", limits)
    port = world.port("enrolment")
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
    async with asyncio.timeout(60):
        for reader, _ in silent[2:]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read(1) == b""
    assert front.handshakes == 2
    _, elsewhere = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
    async with asyncio.timeout(60):
        while front.handshakes < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for writer in (elsewhere, *(writer for _, writer in silent)):
        writer.close()


async def test_a_secured_connection_has_a_small_buffer(
    world: NodeWorld, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two TLS records; of asyncio's own accord it would be 256 KiB for whoever connects."""
    made: list[int] = []
    real = sslproto.SSLProtocol.__init__

    def watched(self: Any, *arguments: Any, **more: Any) -> None:
        real(self, *arguments, **more)
        made.append(len(self.get_buffer(-1)))

    monkeypatch.setattr(sslproto.SSLProtocol, "__init__", watched)
    async with node.calls() as calls:
        assert (await calls.RegisterNode(node.registration())).accepted
    assert made == [BUFFER_BYTES]


async def test_strangers_get_fewer_connections_than_nodes(world: NodeWorld) -> None:
    enrolment, own = world.listeners.fronts
    assert enrolment.limits.per_source < own.limits.per_source
    port = world.port("enrolment")
    allowed = enrolment.limits.handshakes_per_source
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(allowed + 1)]
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            assert await silent[-1][0].read(1) == b""
    assert enrolment.handshakes == allowed
    for _, writer in silent:
        writer.close()


async def test_connections_of_one_address_are_bounded(
    world: NodeWorld, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = world.listeners.fronts[-1]
    monkeypatch.setattr(front, "limits", FrontLimits(per_source=1))
    async with node.calls() as calls:
        assert (await calls.RegisterNode(node.registration())).accepted
        async with node.calls() as more:
            assert (await refused(more.RegisterNode(node.registration())))[0] == "UNAVAILABLE"
    async with asyncio.timeout(60):
        while front.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with node.calls() as calls:
        assert (await calls.RegisterNode(node.registration())).accepted
