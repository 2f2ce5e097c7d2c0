"""The calls of a node over mutual TLS: what is answered, in which words."""

import asyncio
import json
from typing import Any

import pytest
from ulid import ULID

from palyra_fleet.nodes.records import CapabilityState
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.ids import is_canonical_ulid
from palyra_fleet.wire.protobuf import common_pb2, node_pb2
from tests.fakes.node_world import Node, NodeWorld


async def refused(call: Any) -> tuple[str, str]:
    """Status and text of a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


async def test_a_node_registers_and_keeps_when_it_first_did(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls:
        answer = await calls.RegisterNode(node.registration(echo=True, camera=False))
        assert (answer.v, answer.accepted, answer.reason) == (1, True, "registered")
        assert answer.device_id == node.id
        first = world.state.nodes[node.device.device_id]
        assert [(c.name, c.available) for c in first.capabilities] == [
            ("echo", True),
            ("camera", False),
        ]
        await calls.RegisterNode(node.registration(echo=False))
    again = world.state.nodes[node.device.device_id]
    assert again.registered_at_unix_ms == first.registered_at_unix_ms
    assert [(c.name, c.available) for c in again.capabilities] == [("echo", False)]


@pytest.mark.parametrize("version", [0, 1, 7])
async def test_the_version_of_an_answer_is_the_requests_or_one(node: Node, version: int) -> None:
    async with node.calls() as calls:
        request = node.registration()
        request.v = version
        assert (await calls.RegisterNode(request)).v == max(version, 1)


async def test_every_event_has_one_answer_with_an_id_of_its_own(
    world: NodeWorld, node: Node
) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        stream = calls.StreamNodeEvents()
        ids = set()
        for name in ("node.started", "node.heartbeat", "something.else", "node.stopping"):
            await stream.write(node.event(name))
            answer = await stream.read()
            assert (answer.v, answer.accepted, answer.reason) == (1, True, "accepted")
            assert not answer.HasField("dispatch")
            assert is_canonical_ulid(answer.event_id.ulid)
            ids.add(answer.event_id.ulid)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert (await stream.code()) is grpc.StatusCode.OK
    assert len(ids) == 4
    assert world.state.nodes[node.device.device_id].last_event_name == "node.stopping"
    assert len(world.service.streams) == 0


async def test_a_capability_is_asked_dispatched_answered_and_told(
    world: NodeWorld, node: Node
) -> None:
    async with node.calls() as calls, asyncio.TaskGroup() as tasks:
        await calls.RegisterNode(node.registration())
        stream = calls.StreamNodeEvents()
        await stream.write(node.event("node.started"))
        await stream.read()
        asking = tasks.create_task(
            _execute(calls, node, capability="echo", input_json=b'{"say":"s3cret"}')
        )
        dispatch = await _next_dispatch(stream, node)
        assert (dispatch.capability, dispatch.input_json) == ("echo", b'{"say":"s3cret"}')
        request_id = dispatch.request_id.ulid
        mediation = json.dumps({"request_id": request_id}).encode()
        await stream.write(
            node.event("capability.awaiting_local_mediation", payload_json=mediation)
        )
        assert (await stream.read()).accepted
        assert (
            world.state.capability_requests[request_id].state
            is CapabilityState.AWAITING_LOCAL_MEDIATION
        )
        await stream.write(_result(node, request_id, output_json={"said": "s3cret"}))
        assert (await stream.read()).accepted
        answer = await asking
        assert (answer.success, answer.output_json) == (True, b'{"said":"s3cret"}')
        await stream.done_writing()
    record = world.state.capability_requests[request_id]
    assert record.state is CapabilityState.SUCCEEDED
    assert "s3cret" not in repr(record)


async def test_at_most_one_request_rides_on_an_answer(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        stream = calls.StreamNodeEvents()
        asking = [asyncio.ensure_future(_execute(calls, node)) for _ in range(3)]  # noqa: TID251
        seen = [(await _next_dispatch(stream, node)).request_id.ulid for _ in range(3)]
        assert len(set(seen)) == 3
        for request_id in seen:
            await stream.write(_result(node, request_id))
            await stream.read()
        assert all(answer.success for answer in await asyncio.gather(*asking))


async def test_a_result_of_another_node_or_too_late_is_refused_and_counted(
    world: NodeWorld, node: Node, other: Node
) -> None:
    async with node.calls() as calls, other.calls() as others:
        await calls.RegisterNode(node.registration())
        await others.RegisterNode(other.registration())
        stream, theirs = calls.StreamNodeEvents(), others.StreamNodeEvents()
        asking = asyncio.ensure_future(_execute(calls, node))  # noqa: TID251
        request_id = (await _next_dispatch(stream, node)).request_id.ulid
        await theirs.write(_result(other, request_id))
        foreign = await theirs.read()
        text = "capability request is not open for this node"
        assert (foreign.accepted, foreign.reason) == (False, text)
        await stream.write(_result(node, request_id))
        assert (await stream.read()).accepted
        assert (await asking).success
        await stream.write(_result(node, request_id))
        late = await stream.read()
        assert (late.accepted, late.reason) == (False, text)
        await theirs.write(_result(other, str(ULID())))
        assert not (await theirs.read()).accepted
    assert world.state.capability_requests[request_id].refused_results == 2


BAD_EVENTS = [
    ("", b"", "event_name must be 1 to 128 printable characters"),
    ("a" * 129, b"", "event_name must be 1 to 128 printable characters"),
    ("a\nb", b"", "event_name must be 1 to 128 printable characters"),
    ("node.heartbeat", b"{", "payload_json must be a valid JSON object"),
    ("node.heartbeat", b"[]", "payload_json must be a valid JSON object"),
    ("capability.result", b"", "payload_json must be a valid JSON object"),
    ("capability.result", b"\xff", "payload_json must be a valid JSON object"),
    ("capability.result", b"[" * 100_000, "payload_json must be a valid JSON object"),
    *(
        ("capability.result", b'{"request_id":"x",' + rest + b"}", "must be a valid JSON object")
        for rest in (
            b'"error":"\\ud800"',
            b'"output_json":"\\udfff"',
            b'"output_json":{"\\ud800":1}',
            b'"output_json":NaN',
            b'"output_json":[-Infinity]',
            b'"output_json":1e999',
            b'"output_json":' + b"[" * 64 + b"]" * 64,
        )
    ),
    ("capability.result", b"{}", "payload_json must name a request_id"),
    ("capability.awaiting_local_mediation", b'{"request_id":1}', "payload_json must name"),
]


@pytest.mark.parametrize(("name", "payload", "text"), BAD_EVENTS)
async def test_what_is_no_event_ends_the_stream(
    node: Node, name: str, payload: bytes, text: str
) -> None:
    async with node.calls() as calls:
        stream = calls.StreamNodeEvents()
        await stream.write(node.event(name, payload_json=payload))
        status, said = await refused(stream.read())
        assert status == "INVALID_ARGUMENT"
        assert text in said


async def test_strange_words_of_a_node_stay_words_everywhere(world: NodeWorld, node: Node) -> None:
    """Signs that turn text round, move cursors or are half a letter reach neither file nor log."""
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        stream = calls.StreamNodeEvents()
        asking = asyncio.ensure_future(_execute(calls, node))  # noqa: TID251
        request_id = (await _next_dispatch(stream, node)).request_id.ulid
        said = "no\u202e\u200b\x1b[2J\u2066 " + "\U0001f600" * 300
        await stream.write(_result(node, request_id, success=False, error=said))
        assert (await stream.read()).accepted
        assert (await asking).error == said
        for platform in ("li\u202enux", "li\u200bnux", "li\u00a0nux", "\u2028"):
            request = node.registration()
            request.platform = platform
            assert (await refused(calls.RegisterNode(request)))[0] == "INVALID_ARGUMENT"
        for name in ("echo\u202e", "\u0435cho", "e" * 65, "Echo", ""):
            request = node.registration()
            request.capabilities.add(name=name, available=True)
            assert (await refused(calls.RegisterNode(request)))[0] == "INVALID_ARGUMENT"
    kept = world.state.capability_requests[request_id].error
    assert kept is not None
    assert kept.startswith("no [2J ")
    assert len(kept) <= 240
    assert all(sign.isprintable() for sign in kept)


async def test_an_unregistered_node_executes_nothing(node: Node) -> None:
    async with node.calls() as calls:
        assert await refused(_execute(calls, node)) == (
            "FAILED_PRECONDITION",
            "node must register before executing capabilities",
        )


async def test_bad_asks_are_refused_with_what_is_wrong(node: Node) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        for fields, status in (
            ({"capability": "camera"}, "FAILED_PRECONDITION"),
            ({"capability": "Echo"}, "INVALID_ARGUMENT"),
            ({"input_json": b"{"}, "INVALID_ARGUMENT"),
            ({"input_json": b'"http://\\ud800.example"'}, "INVALID_ARGUMENT"),
            ({"input_json": b"1e999"}, "INVALID_ARGUMENT"),
            ({"input_json": b"[" * 65 + b"]" * 65}, "INVALID_ARGUMENT"),
            ({"max_payload_bytes": 1, "input_json": b"11"}, "INVALID_ARGUMENT"),
            ({"max_payload_bytes": 2**63}, "INVALID_ARGUMENT"),
        ):
            assert (await refused(_execute(calls, node, **fields)))[0] == status, fields


async def test_a_malformed_id_is_named(node: Node) -> None:
    async with node.calls() as calls:
        request = node.registration()
        for bad in ("", "x", "I" * 26, "8" + node.device.device_id[1:]):
            request.device_id.ulid = bad
            assert await refused(calls.RegisterNode(request)) == (
                "INVALID_ARGUMENT",
                "device_id must be a canonical ULID",
            )


@pytest.mark.parametrize("platform", ["", "x" * 65, "a\x1bb"])
async def test_a_platform_is_short_and_printable(node: Node, platform: str) -> None:
    async with node.calls() as calls:
        request = node.registration()
        request.platform = platform
        assert (await refused(calls.RegisterNode(request)))[0] == "INVALID_ARGUMENT"


async def test_a_nonce_counts_once_and_only_near_its_time(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls:
        request = node.registration()
        request.replay.CopyFrom(
            common_pb2.ReplayProtection(nonce="n1", timestamp_unix_ms=world.clock())
        )
        assert (await calls.RegisterNode(request)).accepted
        again = await refused(calls.RegisterNode(request))
        assert again == ("FAILED_PRECONDITION", "replay.nonce was used before")
        request.replay.nonce = "n2"
        request.replay.timestamp_unix_ms -= 6 * 60 * 1000
        assert (await refused(calls.RegisterNode(request)))[0] == "FAILED_PRECONDITION"
        stream = calls.StreamNodeEvents()
        replay = common_pb2.ReplayProtection(nonce="n3", timestamp_unix_ms=world.clock())
        await stream.write(node.event(replay=replay))
        assert (await stream.read()).accepted
        await stream.write(node.event(replay=replay))
        assert (await refused(stream.read()))[1] == "replay.nonce was used before"


async def test_a_message_has_at_most_four_mebibytes(node: Node) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        too_large = node.event(payload_json=b" " * (4 * 1024 * 1024))
        stream = calls.StreamNodeEvents()
        await stream.write(too_large)
        assert (await refused(stream.read()))[0] == "RESOURCE_EXHAUSTED"
        assert (await calls.RegisterNode(node.registration())).accepted


async def test_a_device_revokes_itself_and_its_record_goes(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        answer = await calls.RevokeDevicePairing(
            node_pb2.RevokeDevicePairingRequest(v=1, device_id=node.id, reason="sold")
        )
        assert (answer.revoked, answer.reason) == (True, "revoked")
        assert node.device.device_id not in world.state.nodes
    async with node.calls() as calls:
        assert await refused(calls.RegisterNode(node.registration())) == (
            "PERMISSION_DENIED",
            "node RPC client certificate fingerprint is revoked",
        )


async def _execute(calls: Any, node: Node, **fields: Any) -> Any:
    chosen = {"capability": "echo", "input_json": b"{}"} | fields
    return await calls.ExecuteCapability(
        node_pb2.ExecuteCapabilityRequest(v=1, device_id=node.id, **chosen)
    )


async def _next_dispatch(stream: Any, node: Node) -> Any:
    """Heartbeats until one of the answers brings a request."""
    while True:
        await stream.write(node.event())
        answer = await stream.read()
        if answer.HasField("dispatch"):
            return answer.dispatch


def _result(node: Node, request_id: str, **fields: Any) -> node_pb2.NodeEventRequest:
    payload = {"request_id": request_id, "success": True, "output_json": {}} | fields
    return node.event("capability.result", payload_json=json.dumps(payload).encode())
