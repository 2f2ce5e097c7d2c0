"""Who gets through: every bad certificate on real sockets, and a good one that goes bad."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.nodes.errors import TlsUnsound
from palyra_fleet.nodes.listeners import self_test
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.nodes.server_certificate import ServerCertificate
from palyra_fleet.nodes.tls_front import Arrivals, FrontLimits
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import node_pb2, node_pb2_grpc
from tests.fakes.identity_world import QUIET
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import SERVER_NAME, Material, Node, NodeWorld, forged, node_world
from tests.fakes.pairing_device import PairingDevice, csr_pem

NO_CERTIFICATE = "node RPC request is missing a client certificate"
REVOKED = "node RPC client certificate fingerprint is revoked"
UNKNOWN = "node RPC client certificate does not map to a paired device"
OTHER = "node RPC request device_id does not match the authenticated client certificate"
DAY_MS = 24 * 60 * 60 * 1000


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


def register(material: Material | None, world: NodeWorld, listener: str = "node") -> Any:
    async def call() -> Any:
        async with world.channel(material, listener) as channel:
            request = Node(PairingDevice(ulid(1)), Material(b"", b""), world).registration()
            return await node_pb2_grpc.NodeServiceStub(channel).RegisterNode(request)

    return call()


def _uri(world: NodeWorld, device: int = 1) -> str:
    return f"spiffe://{world.authority.trust_domain}/device/{ulid(device)}"


HANDSHAKE = "UNAVAILABLE"
BAD_MATERIAL: dict[str, tuple[Callable[[NodeWorld], Material | None], str]] = {
    "no certificate": (lambda _: None, HANDSHAKE),
    "another authority of the same name": (lambda _: forged(None, ulid(1)), HANDSHAKE),
    "expired": (lambda w: forged(w.authority, ulid(1), days_to=-0.5), HANDSHAKE),
    "not yet valid": (lambda w: forged(w.authority, ulid(1), days_from=0.5), HANDSHAKE),
    "a server's": (
        lambda w: forged(w.authority, ulid(1), purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)),
        HANDSHAKE,
    ),
    "for everything": (
        lambda w: forged(
            w.authority, ulid(1), purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)
        ),
        "",
    ),
    "a client's and a server's": (
        lambda w: forged(
            w.authority,
            ulid(1),
            purposes=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        ),
        NO_CERTIFICATE,
    ),
    "for no stated use": (lambda w: forged(w.authority, ulid(1), purposes=()), NO_CERTIFICATE),
    "two URI names": (
        lambda w: forged(w.authority, ulid(1), uris=(_uri(w), _uri(w, 2))),
        NO_CERTIFICATE,
    ),
    "no name": (lambda w: forged(w.authority, ulid(1), uris=()), NO_CERTIFICATE),
    "another trust domain": (
        lambda w: forged(w.authority, ulid(1), uris=(f"spiffe://else/device/{ulid(1)}",)),
        NO_CERTIFICATE,
    ),
    "an authority's": (lambda w: forged(w.authority, ulid(1), ca=True), ""),
    "with a long chain": (lambda w: forged(w.authority, ulid(1), junk=6), NO_CERTIFICATE),
    "with a chain of a megabyte": (lambda w: forged(w.authority, ulid(1), junk=1200), HANDSHAKE),
    "signed by us, but given to nobody": (lambda w: forged(w.authority, ulid(1)), UNKNOWN),
}


@pytest.mark.parametrize("what", BAD_MATERIAL)
async def test_a_bad_certificate_is_refused_by_the_node_listener(
    world: NodeWorld, node: Node, what: str
) -> None:
    make, expected = BAD_MATERIAL[what]
    status, text = await refused(register(make(world), world))
    if expected == HANDSHAKE:
        assert status == "UNAVAILABLE"
    elif expected == UNKNOWN:
        assert (status, text) == ("PERMISSION_DENIED", UNKNOWN)
    else:
        # some of these TLS itself may refuse; what it lets through, the gate does not
        assert (status, text) == ("UNAUTHENTICATED", NO_CERTIFICATE) or (
            status == "UNAVAILABLE" and not expected
        )
    assert node.device.device_id not in world.state.nodes


@pytest.mark.parametrize("what", [*BAD_MATERIAL, "good"])
async def test_the_enrolment_listener_serves_no_certificate_more_than_pairing(
    world: NodeWorld, node: Node, what: str
) -> None:
    material = node.material if what == "good" else BAD_MATERIAL[what][0](world)
    assert (await refused(register(material, world, "enrolment")))[0] == "UNIMPLEMENTED"
    async with world.channel(material, "enrolment") as channel:
        calls = node_pb2_grpc.NodeServiceStub(channel)
        for call in (
            calls.RotateDeviceCertificate(node_pb2.RotateDeviceCertificateRequest()),
            calls.RevokeDevicePairing(node_pb2.RevokeDevicePairingRequest()),
            calls.ExecuteCapability(node_pb2.ExecuteCapabilityRequest()),
            calls.StreamNodeEvents().read(),
            channel.unary_unary("/palyra.node.v1.NodeService/Nothing")(b""),
        ):
            assert (await refused(call))[0] == "UNIMPLEMENTED"


async def test_the_good_certificate_gets_through(world: NodeWorld, node: Node) -> None:
    assert (await register(node.material, world)).accepted


async def test_every_method_of_the_node_listener_passes_the_gate(
    world: NodeWorld, node: Node
) -> None:
    stranger = forged(world.authority, ulid(9))
    async with world.channel(stranger) as channel:
        calls = node_pb2_grpc.NodeServiceStub(channel)
        stream = calls.StreamNodeEvents()
        await stream.write(node.event())
        for call in (
            calls.BeginPairingSession(node_pb2.BeginPairingSessionRequest()),
            calls.CompletePairingSession(node_pb2.CompletePairingSessionRequest()),
            calls.GetPairingRequestStatus(node_pb2.GetPairingRequestStatusRequest()),
            calls.RotateDeviceCertificate(node_pb2.RotateDeviceCertificateRequest()),
            calls.RevokeDevicePairing(node_pb2.RevokeDevicePairingRequest(device_id=node.id)),
            calls.RegisterNode(node.registration()),
            calls.ExecuteCapability(node_pb2.ExecuteCapabilityRequest(device_id=node.id)),
            stream.read(),
        ):
            assert await refused(call) == ("PERMISSION_DENIED", UNKNOWN)


async def test_nobody_speaks_for_another_device(world: NodeWorld, node: Node, other: Node) -> None:
    async with node.calls() as calls:
        for call in (
            calls.RegisterNode(other.registration()),
            calls.RevokeDevicePairing(node_pb2.RevokeDevicePairingRequest(device_id=other.id)),
            calls.RotateDeviceCertificate(
                node_pb2.RotateDeviceCertificateRequest(device_id=other.id)
            ),
            calls.ExecuteCapability(node_pb2.ExecuteCapabilityRequest(device_id=other.id)),
        ):
            assert await refused(call) == ("PERMISSION_DENIED", OTHER)
        stream = calls.StreamNodeEvents()
        await stream.write(node.event())
        assert (await stream.read()).accepted
        await stream.write(other.event())
        assert await refused(stream.read()) == ("PERMISSION_DENIED", OTHER)
    assert (await register_ok(other)).accepted


async def register_ok(node: Node) -> Any:
    async with node.calls() as calls:
        return await calls.RegisterNode(node.registration())


async def test_a_revocation_ends_streams_and_connections_at_once(
    world: NodeWorld, node: Node, other: Node
) -> None:
    channel = world.open_channel(node.material)
    calls = node_pb2_grpc.NodeServiceStub(channel)
    async with other.calls() as others:
        await calls.RegisterNode(node.registration())
        stream, theirs = calls.StreamNodeEvents(), others.StreamNodeEvents()
        for mine, of in ((stream, node), (theirs, other)):
            await mine.write(of.event())
            await mine.read()
        await world.identity.revoke_device(node.device.device_id, "lost", "anna")
        # nothing more is sent, and the stream ends all the same
        assert await refused(stream.read()) == ("PERMISSION_DENIED", REVOKED)
        async with asyncio.timeout(20):
            while channel.get_state() is grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert await refused(calls.RegisterNode(node.registration())) == (
            "PERMISSION_DENIED",
            REVOKED,
        )
        await theirs.write(other.event())
        assert (await theirs.read()).accepted, "another device's stream was cut too"
    await channel.close()
    assert node.device.device_id not in world.state.nodes


async def test_whoever_waits_for_a_revoked_node_is_told(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        asking = calls.ExecuteCapability(
            node_pb2.ExecuteCapabilityRequest(device_id=node.id, capability="echo")
        )
        stream = calls.StreamNodeEvents()
        await stream.write(node.event())
        while not (await stream.read()).HasField("dispatch"):
            await stream.write(node.event())
        await world.identity.remove_device(node.device.device_id, "sold", "anna")
        assert (await refused(asking))[0] == "PERMISSION_DENIED"


async def test_a_rotated_out_certificate_is_refused_from_the_first_use_of_the_new(
    tmp_path: Path,
) -> None:
    settings = IdentitySettings(reap_every_ms=QUIET, overlap_ms=0)
    async with node_world(tmp_path / "fleet", identity=settings) as world:
        node = await world.pair(PairingDevice(ulid(1)))
        async with node.calls() as calls:
            await calls.RegisterNode(node.registration())
            stream = calls.StreamNodeEvents()
            await stream.write(node.event())
            await stream.read()
            answer = await calls.RotateDeviceCertificate(
                node_pb2.RotateDeviceCertificateRequest(
                    device_id=node.id, certificate_signing_request_pem=csr_pem(node.device.tls)
                )
            )
            assert (answer.rotated, answer.reason) == (True, "rotated")
            assert answer.mtls_client_private_key_pem == ""
            assert answer.gateway_ca_certificate_pem == world.authority.trust_bundle_pem
            await stream.write(node.event())
            assert (await stream.read()).accepted  # the old one is good until the new one is used
            new = Node(
                node.device,
                Material(answer.mtls_client_certificate_pem.encode(), node.material.key_pem),
                world,
            )
            assert (await register_ok(new)).accepted
            assert await refused(stream.read()) == ("PERMISSION_DENIED", REVOKED)
        status = await refused(register(node.material, world))
        assert status == ("PERMISSION_DENIED", REVOKED)


async def test_a_certificate_that_expires_on_an_open_connection_is_refused(
    world: NodeWorld, node: Node
) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        stream = calls.StreamNodeEvents()
        await stream.write(node.event())
        await stream.read()
        world.clock.ahead_ms += DAY_MS + 60_000
        await stream.write(node.event())
        assert await refused(stream.read()) == ("UNAUTHENTICATED", NO_CERTIFICATE)
        assert await refused(calls.RegisterNode(node.registration())) == (
            "UNAUTHENTICATED",
            NO_CERTIFICATE,
        )


async def test_nothing_is_pushed_to_a_certificate_that_expired(
    world: NodeWorld, node: Node
) -> None:
    async with node.calls() as calls:
        stream = calls.StreamNodeEvents()
        await stream.write(node.event(accepts_push=True))
        await stream.read()
        world.clock.ahead_ms += DAY_MS + 60_000
        world.service.streams.wake(node.device.device_id)
        assert await refused(stream.read()) == ("UNAUTHENTICATED", NO_CERTIFICATE)


def handshake(
    world: NodeWorld, listener: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[str, bool, ssl.SSLSession | None] | None:
    """TLS version, whether the session was resumed, and the session; None if refused."""
    address = ("127.0.0.1", world.port(listener))
    try:
        with (
            socket.create_connection(address, timeout=20) as plain,
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
        socket.create_connection(("127.0.0.1", world.port("node")), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as found,
    ):
        certificate = found.getpeercert(binary_form=True)
        assert certificate is not None
        leaf = x509.load_der_x509_certificate(certificate)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(names.get_values_for_type(x509.DNSName)) >= {"localhost", SERVER_NAME}
        return ssl.DER_cert_to_PEM_cert(certificate)


async def test_a_new_authority_is_trusted_by_open_listeners(world: NodeWorld, node: Node) -> None:
    await world.identity.rotate_authority("anna")
    newer = await world.pair(PairingDevice(ulid(7)))
    assert (await register_ok(newer)).accepted
    assert (await register_ok(node)).accepted


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
    async with asyncio.timeout(20):
        for ended in (second, reader):
            with contextlib.suppress(ConnectionError):
                assert await ended.read(1) == b""
    for one in (writer, other):
        one.close()
    assert front.handshakes == 0


async def test_connections_of_one_address_are_bounded(
    world: NodeWorld, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = world.listeners.fronts[-1]
    monkeypatch.setattr(front, "limits", FrontLimits(per_source=1))
    async with node.calls() as calls:
        assert (await calls.RegisterNode(node.registration())).accepted
        async with node.calls() as more:
            assert (await refused(more.RegisterNode(node.registration())))[0] == "UNAVAILABLE"
    async with asyncio.timeout(20):
        while front.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    async with node.calls() as calls:
        assert (await calls.RegisterNode(node.registration())).accepted
