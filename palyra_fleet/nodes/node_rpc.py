"""NodeRpcServiceImpl: the published gRPC service, a thin adapter over `NodeService`.

One instance per listener. The enrolment listener serves the three pairing methods to anybody, and
nothing else; on the node listener every call passes the gate first. Refusals become the published
status and text at one edge, `_answer`; a failure of ours says nothing of the inside. Method names
are those of the protocol.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Final, Never

from palyra_fleet.identity.messages import PairedDevice, VerifiedLeaf
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused, refuse
from palyra_fleet.logs.faults import fault_of
from palyra_fleet.nodes import rpc_messages as messages
from palyra_fleet.nodes.capabilities import CapabilityAsk
from palyra_fleet.nodes.capability_refusals import (
    CapabilityReason,
    CapabilityRefusal,
    CapabilityRefused,
)
from palyra_fleet.nodes.gate import Gate
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.nodes.records import DeviceCapabilityRecord
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.nodes.stream_rpc import serve_stream
from palyra_fleet.nodes.tls_front import Arrivals
from palyra_fleet.store.protocol import StoreFailed
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc

_log = logging.getLogger(__name__)


class NodeListener(StrEnum):
    """Where a call came in."""

    ENROLMENT = "enrolment"
    NODE = "node"


_MAX_UNDER_WAY: Final = {NodeListener.ENROLMENT: 64, NodeListener.NODE: 1024}
"""Calls at once from one address, streams apart: a node listener may sit behind one gateway."""

type _Context = grpc.aio.ServicerContext[Any, Any]


class NodeRpcServiceImpl(node_pb2_grpc.NodeServiceServicer):
    """See the module."""

    def __init__(
        self, service: NodeService, gate: Gate, listener: NodeListener, arrivals: Arrivals
    ) -> None:
        self._service = service
        self._gate = gate
        self._listener = listener
        self._arrivals = arrivals
        self._under_way: Counter[str] = Counter()

    # --- pairing: on both listeners ---

    async def BeginPairingSession(  # noqa: N802
        self, request: node_pb2.BeginPairingSessionRequest, context: _Context
    ) -> node_pb2.BeginPairingSessionResponse:
        return await self._answer(request, context, self._begin)

    async def CompletePairingSession(  # noqa: N802
        self, request: node_pb2.CompletePairingSessionRequest, context: _Context
    ) -> node_pb2.CompletePairingSessionResponse:
        return await self._answer(request, context, self._complete)

    async def GetPairingRequestStatus(  # noqa: N802
        self, request: node_pb2.GetPairingRequestStatusRequest, context: _Context
    ) -> node_pb2.GetPairingRequestStatusResponse:
        return await self._answer(request, context, self._status)

    # --- nodes: on the node listener only ---

    async def RotateDeviceCertificate(  # noqa: N802
        self, request: node_pb2.RotateDeviceCertificateRequest, context: _Context
    ) -> node_pb2.RotateDeviceCertificateResponse:
        await self._node_listener_only(context)
        return await self._answer(request, context, self._rotate)

    async def RevokeDevicePairing(  # noqa: N802
        self, request: node_pb2.RevokeDevicePairingRequest, context: _Context
    ) -> node_pb2.RevokeDevicePairingResponse:
        await self._node_listener_only(context)
        return await self._answer(request, context, self._revoke)

    async def RegisterNode(  # noqa: N802
        self, request: node_pb2.RegisterNodeRequest, context: _Context
    ) -> node_pb2.RegisterNodeResponse:
        await self._node_listener_only(context)
        return await self._answer(request, context, self._register)

    async def ExecuteCapability(  # noqa: N802
        self, request: node_pb2.ExecuteCapabilityRequest, context: _Context
    ) -> node_pb2.ExecuteCapabilityResponse:
        await self._node_listener_only(context)
        return await self._answer(request, context, self._execute)

    async def StreamNodeEvents(  # noqa: N802
        self, request_iterator: object, context: _Context
    ) -> None:
        await self._node_listener_only(context)
        try:
            peer = self._arrivals.peer_of(context.peer())
            leaf = self._gate.leaf(peer)
            device = await self._gate.admit(leaf, None)
            stream = self._service.streams.open(device.device_id, leaf.fingerprint, peer.host)
            try:
                await serve_stream(context, self._service, self._gate, leaf, stream)
            finally:
                self._service.streams.close(stream)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 (an outer edge: nothing of ours gets out)
            await _abort(context, error)

    # --- the work ---

    async def _begin(
        self, request: node_pb2.BeginPairingSessionRequest, peer: Peer
    ) -> node_pb2.BeginPairingSessionResponse:
        await self._gate_if_node(peer, None)
        begun = await self._service.pairing.begin(messages.begin_of(request), peer.address)
        return messages.begun_message(request.v, begun)

    async def _complete(
        self, request: node_pb2.CompletePairingSessionRequest, peer: Peer
    ) -> node_pb2.CompletePairingSessionResponse:
        await self._gate_if_node(peer, request.device_id.ulid)
        completed = await self._service.pairing.complete(
            messages.complete_of(request), peer.address
        )
        return messages.completed_message(request.v, completed)

    async def _status(
        self, request: node_pb2.GetPairingRequestStatusRequest, peer: Peer
    ) -> node_pb2.GetPairingRequestStatusResponse:
        await self._gate_if_node(peer, request.device_id.ulid)
        status = await self._service.pairing.status(messages.status_of(request))
        return messages.status_message(request.v, status)

    async def _rotate(
        self, request: node_pb2.RotateDeviceCertificateRequest, peer: Peer
    ) -> node_pb2.RotateDeviceCertificateResponse:
        _, caller = await self._admit(peer, request)
        issued = await self._service.identity.rotate(
            caller, request.certificate_signing_request_pem
        )
        return messages.rotated_message(request.v, issued)

    async def _revoke(
        self, request: node_pb2.RevokeDevicePairingRequest, peer: Peer
    ) -> node_pb2.RevokeDevicePairingResponse:
        _, caller = await self._admit(peer, request)
        actor = f"device:{caller.device_id}"
        reason = request.reason[:240] or "revoked by the device itself"
        await self._service.identity.revoke_device(caller.device_id, reason, actor)
        await self._service.state.remove_node(caller.device_id)
        return node_pb2.RevokeDevicePairingResponse(
            v=messages.version_of(request.v), revoked=True, reason="revoked"
        )

    async def _register(
        self, request: node_pb2.RegisterNodeRequest, peer: Peer
    ) -> node_pb2.RegisterNodeResponse:
        leaf, caller = await self._admit(peer, request)
        capabilities = tuple(
            DeviceCapabilityRecord(capability.name, capability.available)
            for capability in request.capabilities
        )
        node = await self._service.register(caller.device_id, request.platform, capabilities)
        try:
            self._gate.check(leaf)
        except NodeRefused:
            # revoked while the record was being written: it goes with the device
            await self._service.state.remove_node(caller.device_id)
            raise
        return node_pb2.RegisterNodeResponse(
            v=messages.version_of(request.v),
            device_id=messages.canonical(node.device_id),
            accepted=True,
            reason="registered",
        )

    async def _execute(
        self, request: node_pb2.ExecuteCapabilityRequest, peer: Peer
    ) -> node_pb2.ExecuteCapabilityResponse:
        leaf, caller = await self._admit(peer, request)
        asked = CapabilityAsk(
            device_id=caller.device_id,
            capability=request.capability,
            input_json=request.input_json,
            max_payload_bytes=request.max_payload_bytes,
            requested_by=f"device:{caller.device_id}",
        )
        result = await self._service.execute(asked)
        self._gate.check(leaf)  # nothing is told to a device that was revoked meanwhile
        return messages.executed_message(request.v, result)

    # --- the gate ---

    async def _admit(
        self,
        peer: Peer,
        request: node_pb2.RotateDeviceCertificateRequest
        | node_pb2.RevokeDevicePairingRequest
        | node_pb2.RegisterNodeRequest
        | node_pb2.ExecuteCapabilityRequest,
    ) -> tuple[VerifiedLeaf, PairedDevice]:
        """The caller, whom the request must name, once per nonce. Raises NodeRefused."""
        leaf = self._gate.leaf(peer)
        caller = await self._gate.admit(leaf, request.device_id.ulid)
        if not isinstance(request, node_pb2.ExecuteCapabilityRequest) and request.HasField(
            "replay"
        ):
            self._check_replay(caller.device_id, request.replay)
        return leaf, caller

    def _check_replay(self, scope: str, sent: common_pb2.ReplayProtection) -> None:
        refusal = self._service.identity.replay(scope, messages.replay_of(sent))
        if refusal is not None:
            raise NodeRefused(refusal)

    async def _gate_if_node(self, peer: Peer, device_id: str | None) -> None:
        if self._listener is NodeListener.NODE:
            await self._gate.admit(self._gate.leaf(peer), device_id)

    # --- the edge ---

    async def _node_listener_only(self, context: _Context) -> None:
        if self._listener is not NodeListener.NODE:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not implemented!")

    async def _answer[Request, Response](
        self,
        request: Request,
        context: _Context,
        work: Callable[[Request, Peer], Awaitable[Response]],
    ) -> Response:
        peer = self._arrivals.peer_of(context.peer())
        if not peer.session_is_sound:  # not through our TLS: nobody we serve
            await _abort(context, NodeRefused(refuse(NodeReason.GATE_NO_CERTIFICATE)))
        if self._under_way[peer.host] >= _MAX_UNDER_WAY[self._listener]:
            await _abort(context, CapabilityRefused(CapabilityRefusal(CapabilityReason.CALLS_FULL)))
        self._under_way[peer.host] += 1
        try:
            return await work(request, peer)
        except Exception as error:  # noqa: BLE001 (an outer edge: nothing of ours gets out)
            await _abort(context, error)
        finally:
            self._under_way[peer.host] -= 1
            if not self._under_way[peer.host]:
                del self._under_way[peer.host]


async def _abort(context: _Context, error: Exception) -> Never:
    """End the call with the published status; what is ours is logged and not told."""
    refusal: NodeRefusal | CapabilityRefusal
    match error:
        case NodeRefused() | CapabilityRefused():
            refusal = error.refusal
        case StoreFailed():
            _log.error("a node's change could not be made durable: %s", error)
            refusal = refuse(NodeReason.STORE_UNAVAILABLE)
        case _:
            _log.error("a node's call failed: %s", fault_of(error))
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
    await context.abort(grpc.StatusCode[refusal.reason.status], refusal.text)
