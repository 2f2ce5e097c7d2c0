"""The node agent: registers, keeps a stream, beats, answers dispatches, rotates, comes back.

One connection at a time. When it breaks, the agent waits (longer each time, never the same) and
connects again; when the fleet says that this node is revoked or unknown, it ends, because no
trying will change that. The certificate is renewed at half of its life, or at once when the fleet
asks; the new one is stored before it is used, and the old one forgotten once the fleet has answered
to the new one. Nothing here decides anything about workers: notices are handed to a listener.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.node_agent.answers import Machine, answer, capabilities, platform_name
from palyra_fleet.node_agent.channel import open_channel
from palyra_fleet.node_agent.keys import CertificateKey, CertificateRefused, merged_roots
from palyra_fleet.node_agent.material import AgentHome, Certificate, NodeMaterial
from palyra_fleet.private_files import replace as replace_file
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc

HEARTBEAT_EVERY_S: Final = 1.0
CALL_WITHIN_S: Final = 10.0
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
STEADY_AFTER_S: Final = 30.0
_FINAL: Final = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})

type Stub = node_pb2_grpc.NodeServiceStub
type Stream = grpc.aio.StreamStreamCall[node_pb2.NodeEventRequest, node_pb2.NodeEventResponse]


class NodeRefusedForGood(Exception):
    """The fleet does not know this node, or no more; it must be paired again."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How often to beat (seconds), and where to tell what happens. `on_notice` gets kind, subject
    and reason of everything that the fleet tells without being asked."""

    heartbeat_every_s: float = HEARTBEAT_EVERY_S
    say: Callable[[str], None] = lambda sentence: None
    on_notice: Callable[[str, str, str], None] = lambda kind, subject, reason: None
    now_unix_ms: Callable[[], int] = now_unix_ms


@dataclass(slots=True)
class NodeAgent:
    """One paired node. `run` it; cancel to stop it in order."""

    home: AgentHome
    settings: AgentSettings = field(default_factory=AgentSettings)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    rotations: int = 0
    _rotate_now: asyncio.Event = field(default_factory=asyncio.Event)
    _started_monotonic_s: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        """Until cancelled. Raises NotPaired, MaterialUnusable or NodeRefusedForGood."""
        wait_s = FIRST_WAIT_S
        while True:
            begun_s = time.monotonic()
            try:
                await self._connection(self.home.load())
            except grpc.aio.AioRpcError as error:
                self._tell_break(error)
            except NodeRefusedForGood:
                self._note("refused")
                raise
            if time.monotonic() - begun_s > STEADY_AFTER_S or self.connected.is_set():
                wait_s = FIRST_WAIT_S
            self.connected.clear()
            self._note("waiting")
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 spread, no secret
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _connection(self, material: NodeMaterial) -> None:
        """One connection, with the newest certificate; with the older one where the fleet knows
        nothing of the newer: its answer was lost, and it was never issued for good."""
        self._refuse_expired(material)
        try:
            await self._serve(material, material.newest)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _FINAL:
                raise
            if material.next_certificate is None:
                raise NodeRefusedForGood(f"{error.details()}; pair it again") from error
            await self._serve(material, material.certificate)

    def _refuse_expired(self, material: NodeMaterial) -> None:
        if self.settings.now_unix_ms() >= material.newest.expires_at_unix_ms:
            raise NodeRefusedForGood(
                "this node's certificate has expired while it was not connected; pair it again"
            )

    async def _serve(self, material: NodeMaterial, certificate: Certificate) -> None:
        roots = material.trusted_roots_pem
        async with open_channel(material.node_address, roots, certificate) as channel:
            stub: Stub = node_pb2_grpc.NodeServiceStub(channel)
            await stub.RegisterNode(
                node_pb2.RegisterNodeRequest(
                    v=1,
                    device_id=common_pb2.CanonicalId(ulid=material.device_id),
                    platform=platform_name(),
                    capabilities=[
                        node_pb2.DeviceCapability(name=name, available=True)
                        for name in capabilities()
                    ],
                ),
                timeout=CALL_WITHIN_S,
            )
            if certificate is material.next_certificate:
                material = material.settled()
                await asyncio.to_thread(self.home.save, material)
            self.connected.set()
            self._note("connected", material)
            self.settings.say(f"connected to {material.node_address}")
            await self._stream(stub, material, certificate)

    async def _stream(self, stub: Stub, material: NodeMaterial, certificate: Certificate) -> None:
        """The event stream until it breaks, or until there is a newer certificate to use."""
        conversation = _Conversation(
            stub.StreamNodeEvents(), material.device_id, self.settings.heartbeat_every_s
        )
        machine = Machine(
            material.device_id,
            material.client_kind,
            certificate.fingerprint,
            self._started_monotonic_s,
        )
        self._rotate_now.clear()
        broken = (grpc.aio.AioRpcError,)
        rotating = spawn(
            self._rotation(stub, material, certificate), "node certificate", told=broken
        )
        talking = spawn(self._talk(conversation, machine), "node stream", told=broken)
        try:
            done, _ = await asyncio.wait({rotating, talking}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            # first, since cancelling whoever reads from the call would cancel the call
            await conversation.say_goodbye()
            for task in (rotating, talking):
                task.cancel()
            await asyncio.gather(rotating, talking, return_exceptions=True)
            conversation.cancel()

    async def _talk(self, conversation: "_Conversation", machine: Machine) -> None:
        await conversation.send("node.started", {"platform": platform_name()})
        beating = spawn(conversation.keep_beating(), "node heartbeat", told=(grpc.aio.AioRpcError,))
        try:
            async for response in conversation.responses():
                for notice in response.notices:
                    self._hear(notice)
                if response.HasField("dispatch"):
                    await self._carry_out(conversation, response.dispatch, machine)
        finally:
            beating.cancel()

    async def _carry_out(
        self,
        conversation: "_Conversation",
        dispatch: node_pb2.NodeCapabilityDispatch,
        machine: Machine,
    ) -> None:
        result = answer(
            dispatch.capability, dispatch.input_json, dispatch.max_payload_bytes, machine
        )
        request_id = dispatch.request_id.ulid
        self.settings.say(f"{dispatch.capability} {request_id}: {result.error or 'done'}")
        await conversation.send_bytes("capability.result", result.payload(request_id))

    def _hear(self, notice: node_pb2.NodeNotice) -> None:
        if notice.kind == node_pb2.NODE_NOTICE_KIND_ROTATE_CERTIFICATE:
            self._rotate_now.set()
        kind = node_pb2.NodeNoticeKind.Name(notice.kind)
        self.settings.on_notice(kind, notice.subject_id, notice.reason)

    async def _rotation(self, stub: Stub, material: NodeMaterial, certificate: Certificate) -> None:
        """Wait until half of the certificate's life is over, get the next one, and store it."""
        wait_s = FIRST_WAIT_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._until_half_life_s(certificate)):
                await self._rotate_now.wait()
        while True:
            try:
                following = await self._rotated(stub, material)
            except CertificateRefused as refused:
                self.settings.say(f"the certificate was not renewed: {refused}")
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                continue
            await asyncio.to_thread(self.home.save, following)
            self.rotations += 1
            self.settings.say("the certificate was renewed; connecting with the new one")
            return

    async def _rotated(self, stub: Stub, material: NodeMaterial) -> NodeMaterial:
        key = CertificateKey.make(material.device_id)
        answered = await stub.RotateDeviceCertificate(
            node_pb2.RotateDeviceCertificateRequest(
                v=1,
                device_id=common_pb2.CanonicalId(ulid=material.device_id),
                certificate_signing_request_pem=key.request_pem,
            ),
            timeout=CALL_WITHIN_S,
        )
        roots = merged_roots(material.trusted_roots_pem, answered.gateway_ca_certificate_pem)
        issued = key.certificate(
            answered.mtls_client_certificate_pem,
            material.device_id,
            roots,
            answered.cert_expires_at_unix_ms,
        )
        return material.with_next(issued, roots)

    def _until_half_life_s(self, certificate: Certificate) -> float:
        issued, expires = certificate.issued_at_unix_ms, certificate.expires_at_unix_ms
        half = issued + (expires - issued) // 2
        return max(0.0, (half - self.settings.now_unix_ms()) / 1000)

    def _tell_break(self, error: grpc.aio.AioRpcError) -> None:
        self.settings.say(f"not connected: {error.details() or error.code().name}")

    def _note(self, state: str, material: NodeMaterial | None = None) -> None:
        """What `node status` shows; nothing secret."""
        fields: dict[str, object] = {"state": state, "at_unix_ms": self.settings.now_unix_ms()}
        if material is not None:
            fields["node_address"] = material.node_address
        with contextlib.suppress(OSError):
            replace_file(self.home.status_file, json.dumps(fields).encode())


class _Conversation:
    """One event stream: events out, in turn; responses in."""

    def __init__(self, call: Stream, device_id: str, heartbeat_every_s: float) -> None:
        self._call = call
        self._device_id = device_id
        self._heartbeat_every_s = heartbeat_every_s
        self._writing = asyncio.Lock()
        self._spoke = asyncio.Event()

    async def send(self, event_name: str, payload: dict[str, object]) -> None:
        await self.send_bytes(event_name, json.dumps(payload).encode())

    async def send_bytes(self, event_name: str, payload_json: bytes) -> None:
        event = node_pb2.NodeEventRequest(
            v=1,
            device_id=common_pb2.CanonicalId(ulid=self._device_id),
            event_name=event_name,
            payload_json=payload_json,
            accepts_push=True,
        )
        async with self._writing:
            await self._call.write(event)
        self._spoke.set()

    async def keep_beating(self) -> None:
        """A heartbeat after each idle interval."""
        while True:
            self._spoke.clear()
            try:
                async with asyncio.timeout(self._heartbeat_every_s):
                    await self._spoke.wait()
            except TimeoutError:
                await self.send("node.heartbeat", {})

    async def responses(self) -> AsyncIterator[node_pb2.NodeEventResponse]:
        while True:
            response = await self._call.read()
            if response is grpc.aio.EOF:
                await self._raise_how_it_ended()
                return
            if isinstance(response, node_pb2.NodeEventResponse):
                yield response

    async def say_goodbye(self) -> None:
        """Say that this node stops, if there is somebody to hear it."""
        with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError):
            async with asyncio.timeout(1):
                await self.send("node.stopping", {})
                await self._call.done_writing()

    def cancel(self) -> None:
        self._call.cancel()

    async def _raise_how_it_ended(self) -> None:
        code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code,
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                details=await self._call.details(),
            )


async def revoke_own_pairing(material: NodeMaterial, reason: str) -> None:
    """Tell the fleet that this node is no more. Raises ConnectionError where it cannot be asked."""
    roots = material.trusted_roots_pem
    try:
        async with open_channel(material.node_address, roots, material.newest) as channel:
            await node_pb2_grpc.NodeServiceStub(channel).RevokeDevicePairing(
                node_pb2.RevokeDevicePairingRequest(
                    v=1, device_id=common_pb2.CanonicalId(ulid=material.device_id), reason=reason
                ),
                timeout=CALL_WITHIN_S,
            )
    except grpc.aio.AioRpcError as error:
        if error.code() in _FINAL:
            return  # it is none already
        raise ConnectionError(f"{material.node_address}: {error.details()}") from error
