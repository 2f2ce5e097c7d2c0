"""WebSockets through the proxy, over real sockets: what opens, what goes on, and what ends one."""

import struct

import pytest
from wsproto.frame_protocol import Opcode

from palyra_egress.proxy.websocket.websocket import FRAMES_AT_ONCE
from palyra_egress.proxy.websocket.websocket_frames import write_frame
from tests.egress.proxy.http.hurried import Hurry
from tests.egress.proxy.websocket.websocket_world import (
    ACCEPT,
    CANARY,
    KEY,
    open_world,
)
from tests.fakes.proxy_harness import WORKER, read_reply, read_to_end

CLOSE_1000 = struct.pack("!H", 1000)


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as made:
        yield made


# --- the handshake --------------------------------------------------------------------------------


async def test_messages_go_both_ways(world):
    socket = await world.open()
    socket.send(Opcode.TEXT, b"hello")
    await world.server.wait_for(lambda server: server.got == b"hello")
    world.server.send(Opcode.BINARY, b"\x00\xff")
    frame = await socket.next()
    assert frame is not None
    assert (frame.opcode, bytes(frame.payload)) == (Opcode.BINARY, b"\x00\xff")
    (verdict,) = world.harness.verdicts()
    assert verdict["target"] == f"ws://ws.example:{world.server.port}/socket"
    assert (verdict["effect"], verdict["rule_id"]) == ("allow", "sockets")


async def test_what_leaves_asks_for_a_socket_and_for_no_extension(world):
    await world.open(Sec_WebSocket_Extensions="permessage-deflate", Sec_WebSocket_Protocol="chat")
    (head,) = world.server.heads
    lines = head.lower().split("\r\n")
    assert "connection: upgrade" in lines and "upgrade: websocket" in lines
    assert f"sec-websocket-key: {KEY.lower()}" in lines
    assert "sec-websocket-protocol: chat" in lines
    assert "sec-websocket-extensions" not in head.lower()
    assert "proxy-authorization" not in head.lower()


@pytest.mark.parametrize(
    ("changed", "status", "reason"),
    [
        ({"host": "none.example"}, 403, "upgrade_not_allowed"),
        ({"path": "/elsewhere"}, 403, "path_not_allowed"),
        ({"Upgrade": "h2c"}, 403, "upgrade_not_allowed"),
        ({"Upgrade": "websocket, h2c"}, 403, "upgrade_not_allowed"),
        ({"Connection": "keep-alive"}, 403, "upgrade_not_allowed"),
        ({"Sec_WebSocket_Key": None}, 400, "request_malformed"),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, 400, "request_malformed"),
        ({"Sec_WebSocket_Version": "8"}, 400, "request_malformed"),
        ({"Sec_WebSocket_Accept": ACCEPT}, 400, "request_malformed"),
    ],
)
async def test_an_upgrade_that_is_not_allowed_reaches_nobody(world, changed, status, reason):
    reply, _ = await world.ask(world.head(**changed))
    assert reply is not None
    assert (reply.status, reply.reason) == (status, f"egress.{reason}")
    assert world.server.connections == 0
    assert world.reasons() == [reason]


async def test_a_plain_request_to_the_same_rule_is_carried_as_before(world):
    world.server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    head = world.head(Upgrade=None, Connection=None, Sec_WebSocket_Key=None)
    reply, _ = await world.ask(head)
    assert reply is not None and reply.status == 200
    assert world.harness.verdicts()[0]["target"].startswith("http://")


GOOD = (
    f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}"
)


@pytest.mark.parametrize(
    "answer",
    [
        GOOD.replace(ACCEPT, "AAAA" + ACCEPT[4:]),
        GOOD.replace("Upgrade: websocket\r\n", ""),
        GOOD.replace("websocket", "foo", 1),
        GOOD.replace("Connection: Upgrade\r\n", ""),
        GOOD.replace("HTTP/1.1", "HTTP/1.0"),
        GOOD + "\r\nSec-WebSocket-Extensions: permessage-deflate",
        GOOD + "\r\nSec-WebSocket-Protocol: nobody-asked",
        GOOD + "\r\nContent-Length: 5",
        GOOD + f"\r\nSec-WebSocket-Accept: {ACCEPT}",
        "HTTP/1.1 101 Switching Protocols",
    ],
)
async def test_a_wrong_101_opens_nothing(world, answer):
    world.server.answer = answer.encode() + b"\r\n\r\n"
    world.server.after = b"\x81\x05hello and raw bytes"
    reply, (reader, writer) = await world.ask(world.head())
    assert reply is not None
    assert (reply.status, reply.reason) == (502, "egress.upstream_protocol")
    writer.write(b"raw bytes of the worker")
    assert b"raw" not in await read_to_end(reader)
    assert world.server.raw == b""


async def test_a_101_that_nobody_asked_for_opens_nothing(world):
    world.server.answer = GOOD.encode() + b"\r\n\r\n"
    world.server.after = b"\x81\x05hello"
    head = world.head(Upgrade=None, Connection=None, Sec_WebSocket_Key=None)
    reply, (reader, writer) = await world.ask(head)
    assert reply is not None and reply.reason == "egress.upstream_protocol"
    writer.write(b"raw")
    assert b"hello" not in await read_to_end(reader)
    assert world.server.raw == b""


@pytest.mark.parametrize(
    "status", ["200 OK", "401 Unauthorized", "302 Found", "426 Upgrade Required"]
)
async def test_an_ordinary_answer_is_passed_on_and_opens_nothing(world, status):
    world.server.answer = f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno".encode()
    reply, (reader, writer) = await world.ask(world.head())
    assert reply is not None
    assert (reply.status, reply.body) == (int(status[:3]), b"no")
    writer.write(b"\x81\x85\x01\x02\x03\x04raw..\r\n\r\n")
    assert (await read_to_end(reader)).startswith(b"HTTP/1.1 400 ")
    assert world.server.raw == b""


async def test_what_a_worker_sends_before_the_answer_is_frames_all_the_same(world):
    reader, writer = await world.harness.connect()
    writer.write(world.head() + b"GET /second HTTP/1.1\r\nHost: other.example\r\n\r\n")
    reply = await read_reply(reader, has_body=lambda status: status != 101)
    assert reply is None or reply.status in (101, 400)
    await read_to_end(reader)
    await world.server.has_ended.wait()
    assert b"second" not in bytes(world.server.raw)
    assert len(world.server.heads) == 1


async def test_frames_that_come_with_the_101_arrive(world):
    world.server.after = b"\x81\x05early"
    socket = await world.open()
    frame = await socket.next()
    assert frame is not None and frame.payload == "early"


# --- frames ---------------------------------------------------------------------------------------


async def test_pings_and_pongs_go_through_and_are_counted(world):
    socket = await world.open()
    socket.send(Opcode.PING, b"are you there")
    await world.server.wait_for(lambda server: server.of(Opcode.PING) == [b"are you there"])
    world.server.send(Opcode.PONG, b"are you there")
    frame = await socket.next()
    assert frame is not None and frame.opcode is Opcode.PONG
    socket.send(Opcode.CLOSE, CLOSE_1000)
    await world.server.wait_for(lambda server: bool(server.of(Opcode.CLOSE)))
    world.server.send(Opcode.CLOSE, CLOSE_1000)
    frame = await socket.next()
    assert frame is not None and frame.opcode is Opcode.CLOSE
    assert await socket.is_cut()
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "complete"
    assert (transfer["request_frames"], transfer["response_frames"]) == (2, 2)
    assert transfer["request_bytes"] == 6 + 13 + 6 + 2
    assert transfer["response_bytes"] == 2 + 13 + 2 + 2


@pytest.mark.parametrize(
    "sent",
    [
        b"\x81\x02hi",  # not masked
        b"\xc1\x80\x01\x02\x03\x04",  # a reserved bit
        b"\x83\x80\x01\x02\x03\x04",  # an opcode that nobody knows
        b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ],
)
async def test_what_a_worker_sends_that_is_no_frame_ends_it(world, sent):
    socket = await world.open()
    socket.send_raw(sent)
    assert await socket.is_cut()
    await world.server.has_ended.wait()
    assert world.server.raw == b""
    assert world.reasons() == ["allowed", "request_malformed"]
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "egress.request_malformed"


@pytest.mark.parametrize(
    "sent",
    [b"\x81\x82\x01\x02\x03\x04hi", b"\xc1\x00", b"HTTP/1.1 200 OK\r\n\r\n", b"\x82\x7e\0\x01x"],
)
async def test_what_a_server_sends_that_is_no_frame_ends_it_and_costs_the_worker_nothing(
    world, sent
):
    socket = await world.open()
    assert world.server.writer is not None
    world.server.writer.write(sent)
    assert await socket.is_cut()
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "egress.upstream_protocol"
    assert world.reasons() == ["allowed"]


async def test_a_large_message_goes_through_in_pieces(world):
    socket = await world.open()
    payload = bytes(range(256)) * 4096  # 1 MiB
    socket.send(Opcode.BINARY, payload)
    await world.server.wait_for(lambda server: len(server.got) == len(payload))
    assert world.server.got == payload
    assert len(world.server.frames) > 1


# --- budgets --------------------------------------------------------------------------------------


async def test_a_worker_that_sends_more_than_its_budget_is_cut(world):
    socket = await world.open("small.example")
    socket.send(Opcode.BINARY, b"x" * 900)
    await world.server.wait_for(lambda server: len(server.got) == 900)
    socket.send(Opcode.BINARY, b"y" * 900)
    assert await socket.is_cut()
    assert b"y" not in world.server.got
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "egress.request_too_large"


async def test_pings_spend_the_budget_too(world):
    socket = await world.open("small.example")
    for _ in range(400):
        socket.send(Opcode.PING)
    assert await socket.is_cut()
    await world.server.has_ended.wait()
    assert len(world.server.of(Opcode.PING)) <= 1024 // 6
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "egress.request_too_large"


async def test_a_server_that_sends_more_than_its_budget_is_cut(world):
    socket = await world.open("small.example")
    world.server.send(Opcode.BINARY, b"x" * 2000)
    while (frame := await socket.next()) is not None:
        assert len(frame.payload) <= 1024
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "egress.response_too_large"


async def test_the_hour_of_a_worker_counts_both_ways(world):
    socket = await world.open("hourly.example")
    socket.send(Opcode.BINARY, b"x" * 600)
    await world.server.wait_for(lambda server: len(server.got) == 600)
    world.server.send(Opcode.BINARY, b"z" * 600)
    assert await socket.is_cut()
    (transfer,) = world.transfers()
    assert transfer["outcome"] == "egress.budget_spent"
    reply, _ = await world.ask(world.head("hourly.example"))
    assert reply is not None and reply.reason == "egress.budget_spent"


async def test_a_flood_of_frames_ends_the_socket_of_whoever_floods(world):
    Hurry(world.harness)  # no time passes, in which there would be room again
    socket = await world.open()
    flood = write_frame(Opcode.PING, b"", masked=True) * (2 * FRAMES_AT_ONCE)
    socket.send_raw(flood)
    assert await socket.is_cut()
    assert world.reasons() == ["allowed", "rate_limited"]
    socket = await world.open()
    assert world.server.writer is not None
    world.server.writer.write(write_frame(Opcode.PONG, b"") * (2 * FRAMES_AT_ONCE))
    while await socket.next() is not None:
        pass
    assert [entry["outcome"] for entry in world.transfers()] == ["egress.rate_limited"] * 2
    assert world.reasons() == ["allowed", "rate_limited", "allowed"]


async def test_handshakes_have_the_rate_of_their_rule(world):
    await world.open("small.example")
    await world.open("small.example")
    reply, _ = await world.ask(world.head("small.example"))
    assert reply is not None and reply.reason == "egress.rate_limited"


# --- leaks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        (CANARY.encode(),),
        (b"x" * 100, CANARY[:10].encode(), CANARY[10:].encode(), b"y"),
        (CANARY.encode().hex().encode(),),
    ],
)
async def test_a_canary_in_a_message_never_leaves_and_quarantines(world, parts):
    socket = await world.open()
    for i, part in enumerate(parts):
        kind = Opcode.CONTINUATION if i else Opcode.TEXT
        socket.send(kind, part, fin=i == len(parts) - 1)
    assert await socket.is_cut()
    await world.server.has_ended.wait()
    assert CANARY.encode() not in world.server.got
    entry = world.harness.verdicts()[-1]
    assert (entry["reason"], entry["found_in"], entry["found"]) == (
        "egress.canary",
        "message",
        "decoy",
    )
    assert CANARY not in str(world.harness.audit())
    assert world.core_blocks(WORKER)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_a_canary_in_a_control_frame_never_leaves(world, opcode):
    socket = await world.open()
    socket.send(opcode, CANARY.encode())
    assert await socket.is_cut()
    await world.server.has_ended.wait()
    assert CANARY.encode() not in bytes(world.server.raw)
    assert world.reasons()[-1] == "canary"


async def test_a_canary_in_the_reason_of_a_close_never_leaves(world):
    socket = await world.open()
    socket.send(Opcode.CLOSE, CLOSE_1000 + CANARY.encode())
    assert await socket.is_cut()
    assert world.server.frames == []
    assert world.reasons()[-1] == "canary"
