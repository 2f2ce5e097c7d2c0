"""Streams that are pushed to, streams that are too many, and calls that take too long."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.nodes.capabilities import CapabilityAsk, CapabilityLimits
from palyra_fleet.nodes.capability_refusals import CapabilityReason, CapabilityRefused
from palyra_fleet.nodes.generations import GenerationFile, WriteFailed
from palyra_fleet.nodes.records import CapabilityState
from palyra_fleet.nodes.streams import MAX_NOTICES, NoticeKind, StreamLimits
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import node_pb2
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import Node, NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice

TIMED_OUT = ("DEADLINE_EXCEEDED", "timed out waiting for node capability result")


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


def ask(node: Node, capability: str = "echo", approved_by: str | None = None) -> CapabilityAsk:
    return CapabilityAsk(node.device.device_id, capability, b"{}", 0, "anna", approved_by)


async def test_a_node_that_accepts_push_is_told_at_once(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls:
        stream = calls.StreamNodeEvents()
        await stream.write(node.event(accepts_push=True))
        await stream.read()
        told = world.service.notify(
            node.device.device_id, NoticeKind.QUARANTINED, ulid(5), "worker.quarantined"
        )
        assert told
        unasked = await stream.read()
        assert not unasked.HasField("event_id")
        (notice,) = unasked.notices
        assert notice.kind == node_pb2.NODE_NOTICE_KIND_QUARANTINED
        assert (notice.subject_id, notice.reason) == (ulid(5), "worker.quarantined")


async def test_a_request_is_pushed_to_a_node_that_accepts_it(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls, asyncio.TaskGroup() as tasks:
        await calls.RegisterNode(node.registration())
        stream = calls.StreamNodeEvents()
        await stream.write(node.event(accepts_push=True))
        await stream.read()
        asking = tasks.create_task(world.service.execute(ask(node)))
        unasked = await stream.read()
        assert not unasked.HasField("event_id")
        payload = {"request_id": unasked.dispatch.request_id.ulid, "success": False, "error": "no"}
        result = json.dumps(payload).encode()
        await stream.write(node.event("capability.result", payload_json=result))
        assert (await stream.read()).HasField("event_id")
        answer = await asking
        assert (answer.success, answer.error, answer.output_json) == (False, "no", b"")


async def test_a_published_client_gets_one_answer_per_event_and_notices_ride_on_it(
    world: NodeWorld, node: Node
) -> None:
    async with node.calls() as calls:
        stream = calls.StreamNodeEvents()
        await stream.write(node.event())
        await stream.read()
        for number in range(MAX_NOTICES + 5):
            world.service.notify(
                node.device.device_id, NoticeKind.LEASE_REVOKED, ulid(number), "over"
            )
        await stream.write(node.event())
        answer = await stream.read()
        assert answer.HasField("event_id")
        assert len(answer.notices) == MAX_NOTICES
        assert answer.notices[-1].subject_id == ulid(MAX_NOTICES + 4)
        await stream.write(node.event())
        assert not (await stream.read()).notices
    assert not world.service.notify(ulid(9), NoticeKind.LEASE_REVOKED, ulid(1), "over")


async def test_streams_are_bounded_per_device_and_source(tmp_path: Path) -> None:
    limits = StreamLimits(per_device=2, per_source=3)
    async with node_world(tmp_path / "fleet", streams=limits) as world:
        node = await world.pair(PairingDevice(ulid(1)))
        other = await world.pair(PairingDevice(ulid(2)))
        full = ("RESOURCE_EXHAUSTED", "too many event streams are open")
        async with node.calls() as calls, other.calls() as others:
            streams = [calls.StreamNodeEvents() for _ in range(2)]
            for stream in streams:
                await stream.write(node.event())
                await stream.read()
            assert await refused(calls.StreamNodeEvents().read()) == full
            third = others.StreamNodeEvents()
            await third.write(other.event())
            assert (await third.read()).accepted
            assert await refused(others.StreamNodeEvents().read()) == full
            await streams[0].done_writing()
            assert await streams[0].read() is grpc.aio.EOF
            again = calls.StreamNodeEvents()
            await again.write(node.event())
            assert (await again.read()).accepted


async def test_a_stream_whose_client_vanishes_gives_its_place_back(
    world: NodeWorld, node: Node
) -> None:
    channel = world.open_channel(node.material)
    stream = channel.stream_stream(
        "/palyra.node.v1.NodeService/StreamNodeEvents",
        request_serializer=node_pb2.NodeEventRequest.SerializeToString,
        response_deserializer=node_pb2.NodeEventResponse.FromString,
    )()
    await stream.write(node.event())
    await stream.read()
    assert len(world.service.streams) == 1
    await channel.close()
    async with asyncio.timeout(60):
        while len(world.service.streams):  # noqa: ASYNC110 the server hears of it by itself
            await asyncio.sleep(0)


async def test_a_request_that_nobody_answers_times_out_and_leaves_its_queue(
    tmp_path: Path,
) -> None:
    limits = CapabilityLimits(timeout_ms=50)
    async with node_world(tmp_path / "fleet", capabilities=limits) as world:
        node = await world.pair(PairingDevice(ulid(1)))
        async with node.calls() as calls:
            await calls.RegisterNode(node.registration())
            request = node_pb2.ExecuteCapabilityRequest(
                v=1, device_id=node.id, capability="echo", input_json=b"{}"
            )
            assert await refused(calls.ExecuteCapability(request)) == TIMED_OUT
            stream = calls.StreamNodeEvents()
            await stream.write(node.event())
            assert not (await stream.read()).HasField("dispatch")
        (record,) = world.state.capability_requests.values()
        assert record.state is CapabilityState.TIMED_OUT


async def test_a_caller_that_goes_takes_its_request_along(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await world.service.execute(ask(node))
    (record,) = world.state.capability_requests.values()
    assert record.state is CapabilityState.TIMED_OUT
    assert world.service.next_dispatch(node.device.device_id) is None


async def test_what_acts_on_a_screen_reaches_the_node_after_an_operator_agreed(
    world: NodeWorld, node: Node
) -> None:
    async with node.calls() as calls, asyncio.TaskGroup() as tasks:
        await calls.RegisterNode(node.registration(desktop__open_url=True))
        stream = calls.StreamNodeEvents()
        request = node_pb2.ExecuteCapabilityRequest(
            v=1,
            device_id=node.id,
            capability="desktop.open_url",
            input_json=b'{"url":"https://a.example/path?token=x"}',
        )
        asking = tasks.create_task(_awaited(calls.ExecuteCapability(request)))
        while not world.state.capability_requests:  # noqa: ASYNC110 the call arrives by itself
            await asyncio.sleep(0)
        ((request_id, record),) = world.state.capability_requests.items()
        assert record.state is CapabilityState.AWAITING_LOCAL_MEDIATION
        assert record.input_summary == "{url: https://a.example/…}"
        assert world.service.input_of(request_id) == request.input_json
        await stream.write(node.event())
        assert not (await stream.read()).HasField("dispatch")
        world.service.decide_request(request_id, approve=True, decided_by="anna")
        await stream.write(node.event())
        assert (await stream.read()).dispatch.request_id.ulid == request_id
        payload = json.dumps({"request_id": request_id, "success": True}).encode()
        await stream.write(node.event("capability.result", payload_json=payload))
        await stream.read()
        assert (await asking).success
        with pytest.raises(CapabilityRefused) as again:
            world.service.decide_request(request_id, approve=False, decided_by="bert")
        assert again.value.refusal.reason is CapabilityReason.NOT_WAITING


async def test_a_rejection_is_told_to_whoever_waits(world: NodeWorld, node: Node) -> None:
    async with node.calls() as calls, asyncio.TaskGroup() as tasks:
        await calls.RegisterNode(node.registration(desktop__open_path=True))
        asking = tasks.create_task(world.service.execute(ask(node, "desktop.open_path")))
        while not world.state.capability_requests:  # noqa: ASYNC110 the task begins by itself
            await asyncio.sleep(0)
        (request_id,) = world.state.capability_requests
        world.service.decide_request(request_id, approve=False, decided_by="anna", reason="no")
        answer = await asking
        assert (answer.success, answer.error) == (False, "rejected by an operator")
        assert world.state.capability_requests[request_id].state is CapabilityState.REJECTED


class FullDisk(GenerationFile):
    """The real file, on a disk without room."""

    def write(self, content: bytes) -> None:
        raise WriteFailed("no space left on device", ambiguous=False)


async def test_a_full_disk_is_told_as_such_and_nothing_of_the_inside(
    world: NodeWorld, node: Node
) -> None:
    good = world.state._file
    world.state._file = FullDisk(good.path)
    async with node.calls() as calls:
        assert await refused(calls.RegisterNode(node.registration())) == (
            "UNAVAILABLE",
            "the change cannot be made durable; try again later",
        )
        world.state._file = good
        assert (await calls.RegisterNode(node.registration())).accepted


async def test_a_failure_of_ours_says_nothing_of_the_inside(
    world: NodeWorld, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("s3cret")

    async with node.calls() as calls:
        monkeypatch.setattr(world.service, "register", broken)
        assert await refused(calls.RegisterNode(node.registration())) == (
            "INTERNAL",
            "internal error",
        )
        monkeypatch.setattr(world.service, "event", broken)
        stream = calls.StreamNodeEvents()
        await stream.write(node.event())
        assert await refused(stream.read()) == ("INTERNAL", "internal error")
    assert "a node's call failed: RuntimeError" in caplog.text


async def test_closing_ends_streams_and_whoever_waits(tmp_path: Path) -> None:
    async with node_world(tmp_path / "fleet") as world:
        node = await world.pair(PairingDevice(ulid(1)))
        channel = world.open_channel(node.material)
        stream = channel.stream_stream(
            "/palyra.node.v1.NodeService/StreamNodeEvents",
            request_serializer=node_pb2.NodeEventRequest.SerializeToString,
            response_deserializer=node_pb2.NodeEventResponse.FromString,
        )()
        await stream.write(node.event())
        await stream.read()
    assert await refused(stream.read()) == ("UNAVAILABLE", "the fleet is shutting down")
    await channel.close()


async def _awaited(call: Any) -> Any:
    return await call
