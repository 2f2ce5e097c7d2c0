"""The corpora's cases about WebSockets that a rule allows, each played over a real one."""

from pathlib import Path
from typing import Any, Final

from wsproto.frame_protocol import Opcode

from tests.egress.proxy.websocket.websocket_world import CANARY, KEY, World, open_world
from tests.fakes.proxy_harness import WORKER, read_to_end

HANDSHAKE: Final = {"Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}


async def play(case: dict[str, Any], directory: Path) -> None:
    given, expected = case["input"], case["expected"]
    async with open_world(directory) as world:
        if expected in ("no_relay", "no_tunnel"):
            await _not_relayed(world)
        elif given.get("event") == "worker quarantined":
            await _cut(world)
        else:
            assert expected == "deny"
            await _split(world, len(given["frames"][0]))


async def _not_relayed(world: World) -> None:
    """The server answers 200, and then what the worker sends is no frame but a bad request."""
    world.server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    reply, (reader, writer) = await world.ask(world.head())
    assert reply is not None and reply.status == 200
    writer.write(b"\x81\x85\x01\x02\x03\x04raw..\r\n\r\n")
    await read_to_end(reader)
    assert world.server.raw == b""


async def _cut(world: World) -> None:
    """A reset at once in place of a close frame: a graceful close would let buffered bytes out."""
    socket = await world.open()
    world.harness.tell("block", worker_id=WORKER)
    assert await socket.is_cut()
    await world.server.has_ended.wait()


async def _split(world: World, first: int) -> None:
    """A value that is watched for, in two messages; its second half does not leave."""
    socket = await world.open()
    for part in (CANARY[:first], CANARY[first:]):
        socket.send(Opcode.TEXT, part.encode())
    assert await socket.is_cut()
    await world.server.has_ended.wait()
    assert CANARY[first:].encode() not in world.server.got
    assert world.reasons()[-1] == "canary"
