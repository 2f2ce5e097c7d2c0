"""What operators see of devices and nodes: pages that hold while things change, what waits, and the
mark by which an open page knows that it is out of date."""

from dataclasses import replace

from ulid import ULID

from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.nodes.records import CapabilityRequestRecord, CapabilityState
from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import Node, NodeWorld
from tests.fakes.pairing_device import PairingDevice

WAITS = CapabilityState.AWAITING_LOCAL_MEDIATION


def asked_of(number: int, state: CapabilityState) -> CapabilityRequestRecord:
    """What a node was asked to do, at that time."""
    return CapabilityRequestRecord(
        request_id=str(ULID.from_timestamp(number)),
        device_id=ulid(1),
        capability="shell.run",
        state=state,
        created_at_unix_ms=number,
        updated_at_unix_ms=number,
        max_payload_bytes=1,
    )


async def test_pages_of_nodes_hold_whoever_was_heard_meanwhile(world: NodeWorld) -> None:
    ids = sorted((str(ULID()) for _ in range(5)), reverse=True)
    for number, device_id in enumerate(ids):
        await world.state.register_node(device_id, "linux", (), 1_000 + number)
    operations = NodeOperations(world.service)
    first = [node.device_id for node in operations.nodes(2)]
    await world.state.register_node(ids[4], "linux", (), 9_000)
    rest = [node.device_id for node in operations.nodes(9, first[-1])]
    assert [*first, *rest] == ids


async def test_devices_that_wait_are_listed_whoever_was_decided_on_since(world: NodeWorld) -> None:
    operations = NodeOperations(world.service)
    first = await world.knock(PairingDevice(ulid(1)))
    second = await world.knock(PairingDevice(ulid(2)))
    for number in (3, 4):
        await world.pair(PairingDevice(ulid(number)))
    every = [one.approval_id for one in operations.pairing_requests(9)]
    assert every == sorted(every, reverse=True)
    assert len(every) == 4
    waiting = operations.pairing_requests(9, waiting=True)
    assert {one.approval_id for one in waiting} == {first.approval_id, second.approval_id}
    assert operations.waiting() == 2
    (newest,) = operations.pairing_requests(1, waiting=True)
    (older,) = operations.pairing_requests(9, newest.approval_id, waiting=True)
    assert {newest.approval_id, older.approval_id} == {first.approval_id, second.approval_id}
    assert operations.pairing_requests(9, every[-1]) == ()


async def test_what_waits_for_an_operator_is_not_hidden_by_what_is_newer(world: NodeWorld) -> None:
    operations = NodeOperations(world.service)
    waits = [asked_of(number, WAITS) for number in (1, 2)]
    at_the_node = replace(asked_of(3, WAITS), dispatched_at_unix_ms=3)
    done = [asked_of(number, CapabilityState.SUCCEEDED) for number in range(4, 9)]
    for record in (*waits, at_the_node, *done, asked_of(9, CapabilityState.QUEUED)):
        world.state.note_request(record)
    found = operations.capability_requests(1, waiting=True)
    assert [one.request_id for one in found] == [waits[1].request_id]
    rest = operations.capability_requests(9, waits[1].request_id, waiting=True)
    assert [one.request_id for one in rest] == [waits[0].request_id]
    assert operations.waiting() == 2
    every = [one.created_at_unix_ms for one in operations.capability_requests(20)]
    assert every == list(range(9, 0, -1))
    after = operations.capability_requests(2, done[0].request_id)
    assert [one.created_at_unix_ms for one in after] == [3, 2]


async def test_devices_that_paired_have_pages(world: NodeWorld) -> None:
    for number in (1, 2, 3):
        await world.pair(PairingDevice(ulid(number)))
    operations = NodeOperations(world.service)
    first = operations.devices(2)
    assert [one.device_id for one in first] == [ulid(3), ulid(2)]
    assert [one.device_id for one in operations.devices(9, ulid(2))] == [ulid(1)]


async def test_the_mark_is_another_whenever_a_page_would_show_something_else(
    world: NodeWorld, node: Node
) -> None:
    operations = NodeOperations(world.service)
    seen = [operations.mark()]

    def changed() -> bool:
        """Whether the mark differs from the last one, and stays while nothing happens."""
        seen.append(operations.mark())
        assert operations.mark() == seen[-1]
        return seen[-1] != seen[-2]

    assert not changed()
    knocked = await world.knock(PairingDevice(ulid(9)))
    assert changed()
    await world.pairing.decide(knocked.approval_id, approve=False, decided_by="anna")
    assert changed()
    async with node.calls() as calls:
        await calls.RegisterNode(node.registration(echo=True))
        assert changed()
        stream = calls.StreamNodeEvents()
        await stream.write(node.event("node.started"))
        await stream.read()
        assert changed()
        await stream.write(node.event("node.heartbeat"))
        await stream.read()
        assert not changed()
        await stream.done_writing()
        await stream.code()
        assert changed()
    world.state.note_request(asked_of(1, WAITS))
    assert changed()
    world.state.note_request(asked_of(1, CapabilityState.REJECTED))
    assert changed()
    await operations.remove_device("anna", node.device.device_id, "it is gone")
    assert changed()
