"""Who gets through: every bad certificate on real sockets, and a good one that goes bad."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import node_pb2, node_pb2_grpc
from tests.fakes.identity_world import QUIET
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import Material, Node, NodeWorld, forged, node_world
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


async def test_the_enrolment_listener_believes_no_certificate_good_or_gone(
    tmp_path: Path,
) -> None:
    """It asks for none, so one that was revoked or rotated out opens and closes nothing there."""
    settings = IdentitySettings(reap_every_ms=QUIET, overlap_ms=0)
    async with node_world(tmp_path / "fleet", identity=settings) as world:
        revoked, rotated = [await world.pair(PairingDevice(ulid(n))) for n in (1, 2)]
        async with rotated.calls() as calls:
            answer = await calls.RotateDeviceCertificate(
                node_pb2.RotateDeviceCertificateRequest(
                    device_id=rotated.id,
                    certificate_signing_request_pem=csr_pem(rotated.device.tls),
                )
            )
        chain = answer.mtls_client_certificate_pem.encode()
        assert await register_ok(
            Node(rotated.device, Material(chain, rotated.material.key_pem), world)
        )
        await world.identity.revoke_device(revoked.device.device_id, "lost", "anna")
        for gone in (revoked, rotated):
            assert await refused(register(gone.material, world)) == ("PERMISSION_DENIED", REVOKED)
            status, _ = await refused(register(gone.material, world, "enrolment"))
            assert status == "UNIMPLEMENTED"
            async with world.channel(gone.material, "enrolment") as channel:
                begin = node_pb2.BeginPairingSessionRequest(v=1, client_kind="node")
                calls = node_pb2_grpc.NodeServiceStub(channel)
                assert (await refused(calls.BeginPairingSession(begin)))[0] == "INVALID_ARGUMENT"


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
        async with asyncio.timeout(60):
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
