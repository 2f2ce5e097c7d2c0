"""The real node service on real sockets, and a node client of raw gRPC calls."""

import datetime
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from palyra_fleet.identity.authority import FleetCertificateAuthority
from palyra_fleet.identity.manager import IdentityManager, IdentitySettings
from palyra_fleet.identity.messages import BegunPairing
from palyra_fleet.identity.pairing import PairingSettings
from palyra_fleet.identity.pairing_service import PairingService
from palyra_fleet.identity.records import ClientKind, CodeMethod, DevicePairingRequestRecord
from palyra_fleet.nodes.capabilities import CapabilityLimits
from palyra_fleet.nodes.listeners import NodeListeners, NodeListenerSettings
from palyra_fleet.nodes.runtime_state import NodeRuntimeState
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.nodes.streams import StreamLimits
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc
from tests.fakes.identity_world import MASTER, QUIET
from tests.fakes.pairing_device import PairingDevice

SERVER_NAME = "palyrad-node-rpc"
WITHIN_S = 60.0


@dataclass(slots=True)
class ShiftedClock:
    """The real time (TLS looks at it too), which tests may move forward for the fleet."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


@dataclass(slots=True)
class Material:
    """A certificate chain and its key, in PEM."""

    chain_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(slots=True)
class Node:
    """A paired device with its own calls."""

    device: PairingDevice
    material: Material
    world: "NodeWorld"

    @property
    def id(self) -> common_pb2.CanonicalId:
        return common_pb2.CanonicalId(ulid=self.device.device_id)

    @property
    def fingerprint(self) -> str:
        leaf = x509.load_pem_x509_certificate(self.material.chain_pem)
        return leaf.fingerprint(SHA256()).hex()

    @asynccontextmanager
    async def calls(self, listener: str = "node") -> AsyncIterator[Any]:
        async with self.world.channel(self.material, listener) as channel:
            yield node_pb2_grpc.NodeServiceStub(channel)

    def registration(self, **available: bool) -> node_pb2.RegisterNodeRequest:
        offered = available or {"echo": True}
        return node_pb2.RegisterNodeRequest(
            v=1,
            device_id=self.id,
            platform="linux",
            capabilities=[
                node_pb2.DeviceCapability(name=name.replace("__", "."), available=can)
                for name, can in offered.items()
            ],
        )

    def event(self, name: str = "node.heartbeat", **fields: Any) -> node_pb2.NodeEventRequest:
        return node_pb2.NodeEventRequest(v=1, device_id=self.id, event_name=name, **fields)


@dataclass(slots=True)
class NodeWorld:
    """One fleet that serves nodes."""

    identity: IdentityManager
    pairing: PairingService
    state: NodeRuntimeState
    service: NodeService
    listeners: NodeListeners
    clock: ShiftedClock

    @property
    def authority(self) -> FleetCertificateAuthority:
        return self.identity.authority

    def port(self, listener: str) -> int:
        return self.listeners.node_port if listener == "node" else self.listeners.enrolment_port

    def open_channel(
        self, material: Material | None, listener: str = "node", **options: int
    ) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.authority.trust_bundle_pem.encode(),
            None if material is None else material.key_pem,
            None if material is None else material.chain_pem,
        )
        chosen = [
            ("grpc.ssl_target_name_override", SERVER_NAME),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            *((f"grpc.{name}", value) for name, value in options.items()),
        ]
        address = f"127.0.0.1:{self.port(listener)}"
        return grpc.aio.secure_channel(address, credentials, chosen)

    def channel(self, material: Material | None, listener: str = "node") -> "_Closing":
        return _Closing(self.open_channel(material, listener))

    async def knock(self, device: PairingDevice) -> DevicePairingRequestRecord:
        """Ask to pair over the enrolment listener, as a node does, and wait for somebody's word."""
        minted = await self.pairing.mint_code(CodeMethod.PIN, "anna")
        async with self.channel(None, "enrolment") as channel:
            calls = node_pb2_grpc.NodeServiceStub(channel)
            begun = await calls.BeginPairingSession(
                node_pb2.BeginPairingSessionRequest(
                    v=1,
                    client_kind=device.client_kind,
                    method=node_pb2.PairingMethod(pin_code=minted.code),
                )
            )
            await calls.CompletePairingSession(completion_message(device, begun, minted.code))
        (request,) = [r for r in self.pairing.requests() if r.session_id == begun.session_id]
        return request

    async def pair(self, device: PairingDevice) -> Node:
        """Pair, with an operator's approval."""
        request = await self.knock(device)
        await self.pairing.decide(request.approval_id, approve=True, decided_by="anna")
        async with self.channel(None, "enrolment") as channel:
            calls = node_pb2_grpc.NodeServiceStub(channel)
            status = await calls.GetPairingRequestStatus(poll_message(device, request.session_id))
        assert status.paired, status
        certificate = status.mtls_client_certificate_pem.encode()
        return Node(device, Material(certificate, key_pem(device.tls)), self)


class _Closing:
    """A channel for one block."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def __aenter__(self) -> grpc.aio.Channel:
        return self._channel

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()


def completion_message(
    device: PairingDevice, begun: node_pb2.BeginPairingSessionResponse, proof: str
) -> node_pb2.CompletePairingSessionRequest:
    asked = device.completion(
        BegunPairing(
            begun.session_id,
            ClientKind(begun.client_kind),
            begun.gateway_ephemeral_public,
            begun.challenge,
            begun.expires_at_unix_ms,
        ),
        proof,
    )
    return node_pb2.CompletePairingSessionRequest(
        v=1,
        session_id=asked.session_id,
        device_id=common_pb2.CanonicalId(ulid=asked.device_id),
        client_kind=asked.client_kind,
        proof=asked.proof,
        device_signing_public=asked.device_signing_public,
        device_x25519_public=asked.device_x25519_public,
        challenge_signature=asked.challenge_signature,
        transcript_mac=asked.transcript_mac,
        certificate_signing_request_pem=asked.certificate_signing_request_pem,
    )


def poll_message(device: PairingDevice, session_id: str) -> node_pb2.GetPairingRequestStatusRequest:
    asked = device.poll(session_id)
    return node_pb2.GetPairingRequestStatusRequest(
        v=1,
        session_id=session_id,
        device_id=common_pb2.CanonicalId(ulid=asked.device_id),
        device_signature=asked.device_signature,
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def forged(
    authority: FleetCertificateAuthority | None,
    device_id: str,
    *,
    days_from: float = -1,
    days_to: float = 1,
    uris: tuple[str, ...] | None = None,
    ca: bool = False,
    purposes: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    junk: int = 0,
) -> Material:
    """A leaf signed with the fleet's own key (or, without an authority, another's), as wrong as
    asked for. `junk`: how many more certificates of that size the chain carries."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.fromtimestamp(time.time_ns() // 10**9, datetime.UTC)
    if authority is not None:
        signer = authority._signers[-1]
        issuer, issuer_key = signer.certificate.subject, signer.key
        identifier = signer.certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value
    else:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Palyra Gateway CA")])
        issuer_key = ec.generate_private_key(ec.SECP256R1())
        identifier = x509.SubjectKeyIdentifier.from_public_key(issuer_key.public_key())
    domain = "palyra.internal" if authority is None else authority.trust_domain
    names = uris if uris is not None else (f"spiffe://{domain}/device/{device_id}",)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Palyra Device {device_id}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Palyra"),
        ]
    )
    usage = x509.KeyUsage(True, False, False, False, False, ca, ca, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days_from))
        .not_valid_after(now + datetime.timedelta(days=days_to))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(n) for n in names]), False
        )
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    leaf = builder.sign(issuer_key, SHA256()).public_bytes(serialization.Encoding.PEM)
    return Material(leaf * (junk + 1), key_pem(key))


@asynccontextmanager
async def node_world(
    state_dir: Path,
    *,
    identity: IdentitySettings | None = None,
    pairing: PairingSettings | None = None,
    capabilities: CapabilityLimits | None = None,
    streams: StreamLimits | None = None,
    coalesce_ms: int = 1000,
    ports: tuple[int, int] = (0, 0),
) -> AsyncIterator[NodeWorld]:
    clock = ShiftedClock()
    settings = identity or IdentitySettings(reap_every_ms=QUIET)
    manager = await IdentityManager.start(state_dir, MASTER, settings, clock)
    state = await NodeRuntimeState.open(state_dir, clock(), coalesce_ms=coalesce_ms)
    try:
        pairs = PairingService(manager, state, pairing)
        service = NodeService(
            state,
            pairs,
            manager,
            clock,
            capability_limits=capabilities,
            stream_limits=streams,
        )
        where = NodeListenerSettings(("127.0.0.1", ports[0]), ("127.0.0.1", ports[1]))
        async with NodeListeners.open(service, manager, where, clock) as listeners:
            yield NodeWorld(manager, pairs, state, service, listeners, clock)
    finally:
        await state.close()
        await manager.close()
