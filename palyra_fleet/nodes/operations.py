"""NodeOperations: what operators do with pairing and nodes, as views for the admin API.

Every change carries who asked. Refusals are raised as `NodeRefused` or `CapabilityRefused`; both
have an HTTP status and a stable reason.
"""

import json
from collections import Counter

from pydantic import JsonValue

from palyra_fleet.identity.records import ClientKind, CodeMethod, DevicePairingRequestRecord
from palyra_fleet.identity.refusals import NodeReason, NodeRefused, refuse
from palyra_fleet.nodes.capabilities import CapabilityAsk
from palyra_fleet.nodes.capability_refusals import (
    CapabilityReason,
    CapabilityRefusal,
    CapabilityRefused,
)
from palyra_fleet.nodes.device_operations import DeviceOperations, newest
from palyra_fleet.nodes.records import CapabilityRequestRecord, RegisteredNodeRecord
from palyra_fleet.wire import node_models as wire


class NodeOperations(DeviceOperations):
    """Over one `NodeService`."""

    async def mint_code(self, actor: str, asked: wire.PairingCodeRequest) -> wire.PairingCodeView:
        minted = await self._service.pairing.mint_code(
            CodeMethod(asked.method), actor, asked.ttl_ms
        )
        return wire.PairingCodeView(
            code=minted.code,
            code_hash=minted.code_hash,
            method=minted.method.value,
            expires_at_unix_ms=minted.expires_at_unix_ms,
        )

    def pairing_requests(
        self, limit: int, after: str | None = None, *, waiting: bool = False
    ) -> tuple[wire.PairingRequestView, ...]:
        """The newest id first; `after` is the id to go on from. `waiting`: only those that nobody
        has decided on yet."""
        every = self._service.pairing.requests()
        found = {one.approval_id: one for one in every if one.state.pending or not waiting}
        return tuple(_request_view(one) for one in newest(found, limit, after))

    def waiting(self) -> int:
        """How many devices, and things asked of nodes, wait for an operator's word."""
        asked = self._service.state.capability_requests.values()
        devices = sum(one.state.pending for one in self._service.pairing.requests())
        return devices + sum(one.waits_for_operator for one in asked)

    async def decide(
        self, actor: str, approval_id: str, reason: str, *, approve: bool, replace: bool = False
    ) -> wire.PairingRequestView:
        decided = await self._service.pairing.decide(
            approval_id,
            approve=approve,
            decided_by=actor,
            reason=reason,
            replace_identity=replace,
        )
        return _request_view(decided)

    def signing_key(self, device_id: str, enrolled_as: str) -> bytes:
        """The key a device paired with, if it may be enrolled so: a node as a launcher, a proxy as
        a proxy. Raises NodeRefused."""
        device = self._service.identity.device(device_id)
        wanted = ClientKind.PROXY if enrolled_as == "proxy" else ClientKind.NODE
        if device is None or device.client_kind is not wanted:
            raise NodeRefused(refuse(NodeReason.GATE_UNKNOWN))
        if device.revoked:
            raise NodeRefused(refuse(NodeReason.DEVICE_REVOKED))
        return bytes.fromhex(device.signing_public_key_hex)

    def nodes(self, limit: int, after: str | None = None) -> tuple[wire.NodeView, ...]:
        """The newest id first, which stays so while nodes are heard; `after` is the id to go on
        from."""
        return tuple(map(self._node_view, newest(self._service.state.nodes, limit, after)))

    def mark(self) -> object:
        """Another one when a device asks to pair or is decided on, is to renew its certificate, did
        or is revoked, when a node comes, goes or is forgotten, and when something is asked of a
        node or decided."""
        pairings = {one.approval_id: one.state for one in self._service.pairing.requests()}
        asked = self._service.state.capability_requests
        devices = self._service.identity.devices()
        return (
            (max(pairings, default=""), Counter(pairings.values())),
            (len(self._service.state.nodes), self._service.streams.changes),
            Counter((one.revoked, one.rotation) for one in devices),
            (max(asked, default=""), Counter(one.state for one in asked.values())),
        )

    def node(self, device_id: str) -> wire.NodeView:
        found = self._service.state.nodes.get(device_id)
        if found is None:
            raise CapabilityRefused(CapabilityRefusal(CapabilityReason.NODE_UNKNOWN))
        return self._node_view(found)

    async def invoke(
        self, actor: str, device_id: str, asked: wire.InvokeRequest
    ) -> wire.InvokeAnswer:
        """Ask, and wait at most as long as a request may take."""
        self.node(device_id)
        result = await self._service.execute(
            CapabilityAsk(
                device_id=device_id,
                capability=asked.capability,
                input_json=json.dumps(asked.input).encode(),
                max_payload_bytes=asked.max_payload_bytes,
                requested_by=actor,
                approved_by=actor,
            )
        )
        output = _parsed(result.output_json)
        return wire.InvokeAnswer(success=result.success, output=output, error=result.error)

    def capability_requests(
        self, limit: int, after: str | None = None, *, waiting: bool = False
    ) -> tuple[wire.CapabilityRequestView, ...]:
        """The newest id first; `after` is the id to go on from. `waiting`: only those that wait for
        an operator's decision."""
        known = self._service.state.capability_requests
        found = {name: one for name, one in known.items() if one.waits_for_operator or not waiting}
        return tuple(map(self._asked_view, newest(found, limit, after)))

    def decide_capability(
        self, actor: str, request_id: str, reason: str, *, approve: bool
    ) -> wire.CapabilityRequestView:
        decided = self._service.decide_request(
            request_id, approve=approve, decided_by=actor, reason=reason
        )
        return self._asked_view(decided)

    def _node_view(self, node: RegisteredNodeRecord) -> wire.NodeView:
        return wire.NodeView(
            device_id=node.device_id,
            platform=node.platform,
            connected=self._service.streams.connected(node.device_id),
            capabilities=tuple(
                wire.NodeCapabilityView(name=one.name, available=one.available)
                for one in node.capabilities
            ),
            registered_at_unix_ms=node.registered_at_unix_ms,
            last_seen_at_unix_ms=node.last_seen_at_unix_ms,
            last_event_name=node.last_event_name,
            last_event_at_unix_ms=node.last_event_at_unix_ms,
        )

    def _asked_view(self, asked: CapabilityRequestRecord) -> wire.CapabilityRequestView:
        waits = not asked.state.finished and asked.dispatched_at_unix_ms is None
        payload = self._service.input_of(asked.request_id) if waits else None
        return wire.CapabilityRequestView(
            request_id=asked.request_id,
            device_id=asked.device_id,
            capability=asked.capability,
            state=asked.state.value,
            requested_by=asked.requested_by,
            decided_by=asked.decided_by,
            created_at_unix_ms=asked.created_at_unix_ms,
            updated_at_unix_ms=asked.updated_at_unix_ms,
            input_summary=asked.input_summary,
            output_summary=asked.output_summary,
            error=asked.error,
            refused_results=asked.refused_results,
            input=_parsed(payload or b""),
        )


def _request_view(request: DevicePairingRequestRecord) -> wire.PairingRequestView:
    return wire.PairingRequestView(
        approval_id=request.approval_id,
        device_id=request.device_id,
        client_kind=request.client_kind.value,
        state=request.state.value,
        identity_fingerprint=request.verified_pairing.identity_fingerprint,
        transcript_hash=request.verified_pairing.transcript_hash_hex,
        method=request.method.value,
        code_issued_by=request.code_issued_by,
        requested_at_unix_ms=request.requested_at_unix_ms,
        expires_at_unix_ms=request.expires_at_unix_ms,
        decided_by=request.decided_by,
        decision_reason=request.decision_reason,
    )


def _parsed(payload_json: bytes) -> JsonValue:
    value: JsonValue = json.loads(payload_json) if payload_json else None
    return value
