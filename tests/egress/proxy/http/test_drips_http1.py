"""What drips in HTTP/1 ends: later heads, bodies of requests, and answers; what is slow goes on.

Time is the test's: minutes pass between two bytes, and every deadline is the product's own.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from palyra_egress.destination.resolver import ResolutionRefused
from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.bounds.idleness import IdleClock
from palyra_egress.proxy.guard.guard_upstream import UpstreamGuard
from palyra_egress.reasons import Reason
from palyra_fleet.tasks import spawn
from tests.egress.proxy.http.hurried import Hurry
from tests.egress.proxy.lanes import chaos
from tests.fakes.proxy_harness import WORKER, Injection, basic, read_reply, read_to_end
from tests.fakes.until import until
from tests.fakes.waiting_resolver import WaitingResolver

TOO_SLOW, NO_END = "egress.request_timeout", "egress.upstream_timeout"
LANES = ("plain", "inspected")
CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr("palyra_egress.proxy.http.http_layer.LOOK_EVERY_S", 0.02)


class Side:
    """A worker's connection that may ask again and again."""

    def __init__(self, world, server, reader, writer, host, is_plain):
        self.world, self.server = world, server
        self.reader, self.writer = reader, writer
        self._authority = f"{host}:{server.port}"
        self._is_plain = is_plain

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def head(self, method: str = "GET", extra: str = "") -> bytes:
        begin = f"http://{self._authority}" if self._is_plain else ""
        who = f"Proxy-Authorization: {basic()}\r\n" if self._is_plain else ""
        return (
            f"{method} {begin}/x HTTP/1.1\r\nHost: {self._authority}\r\n{who}{extra}\r\n"
        ).encode()

    def rest(self) -> "asyncio.Task[bytes]":
        return spawn(read_to_end(self.reader), "read to the end")


@asynccontextmanager
async def a_worker(tmp_path, lane, **settings):
    async with chaos(tmp_path, **settings) as world:
        hurry = Hurry(world.harness)
        if lane == "plain":
            reader, writer = await world.harness.connect()
            yield Side(world, world.plain, reader, writer, "plain.example", True), hurry
        else:
            authority = f"api.example:{world.secure.port}"
            _, reader, writer = await world.harness.tunnel(authority)
            yield Side(world, world.secure, reader, writer, "api.example", False), hurry


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", LANES)
async def test_a_later_head_that_drips_is_answered_408_and_ends_its_connection(tmp_path, lane):
    async with a_worker(tmp_path, lane) as (worker, hurry):
        worker.send(worker.head())
        first = await read_reply(worker.reader)
        assert first is not None
        assert first.status == 200
        worker.send(worker.head()[:-2])
        ended = worker.rest()
        await hurry.drip(lambda: worker.send(b"x"), ended)
        got = ended.result()
        assert got.startswith(b"HTTP/1.1 408 ")
        assert TOO_SLOW.encode() in got
        assert hurry.reasons() == [TOO_SLOW]
        assert len(worker.server.heads) == 1
        await worker.world.everything_is_closed()


@pytest.mark.parametrize("lane", LANES)
async def test_a_head_in_pieces_that_is_whole_in_time_is_answered(tmp_path, lane):
    async with a_worker(tmp_path, lane) as (worker, hurry):
        for _ in range(3):
            worker.send(worker.head()[:-2])
            hurry.pass_s(15)
            worker.send(b"\r\n")
            reply = await read_reply(worker.reader)
            assert reply is not None
            assert reply.status == 200
            hurry.pass_s(100)  # idle between two requests: no head has begun
        assert hurry.reasons() == []


# --- bodies of requests ---------------------------------------------------------------------------

BEGUN = {
    "with a length": ("Content-Length: 100\r\n", b"0123456789", b""),
    "in chunks": (CHUNKED, b"a\r\n0123456789\r\n", b""),
    "in a chunk's extension": (CHUNKED, b"a\r\n0123456789\r\n5;x=", b"x"),
    "in a chunk's size": (CHUNKED, b"a\r\n0123456789\r\n", b"0"),
    "in trailers": (CHUNKED, b"a\r\n0123456789\r\n0\r\nx-long: ", b"x"),
}


@pytest.mark.parametrize("begun", BEGUN)
@pytest.mark.parametrize("lane", LANES)
async def test_a_body_of_which_no_more_comes_is_answered_408(tmp_path, lane, begun):
    framing, body, drop = BEGUN[begun]
    async with a_worker(tmp_path, lane) as (worker, hurry):
        worker.server.respond = nothing
        worker.send(worker.head("POST", framing) + body)
        await until("the body arrives", lambda: b"0123456789" in worker.server.received)
        ended = worker.rest()
        await hurry.drip(lambda: worker.send(drop), ended, every_s=5)
        got = ended.result()
        assert got.startswith(b"HTTP/1.1 408 ")
        assert TOO_SLOW.encode() in got
        assert hurry.outcomes() == [TOO_SLOW]
        _, _, behind = bytes(worker.server.received).partition(b"\r\n\r\n")
        assert behind in (b"0123456789", b"a\r\n0123456789\r\n"), "no end that nobody sent"
        await worker.world.everything_is_closed()


async def nothing(_head, _writer):
    return


@pytest.mark.parametrize("lane", LANES)
async def test_a_slow_but_steady_upload_lives(tmp_path, lane):
    async with a_worker(tmp_path, lane) as (worker, hurry):
        worker.server.reads_bodies = True
        worker.send(worker.head("POST", "Content-Length: 40\r\n"))

        async def one_byte():
            before = len(worker.server.received)
            worker.send(b"b")
            await until("it arrives", lambda: len(worker.server.received) > before)

        await until("the head arrives", lambda: worker.server.received)
        await hurry.steps(40, 50, one_byte)
        reply = await read_reply(worker.reader)
        assert reply is not None
        assert reply.status == 200
        assert bytes(worker.server.received).endswith(b"b" * 40)


async def test_who_is_held_up_by_the_server_does_not_pay_for_it(tmp_path):
    async def takes_nothing(_head, _writer):
        await reading.wait()

    reading = asyncio.Event()
    async with a_worker(tmp_path, "plain") as (worker, hurry):
        worker.server.respond = takes_nothing
        worker.send(worker.head("POST", f"Content-Length: {64 << 20}\r\n") + bytes(32 << 20))
        (handler,) = await until(
            "it is known", lambda: worker.world.core.connections._by_worker.get(WORKER)
        )
        await until(
            "the server takes no more",
            lambda: any(handler.unsent_bytes(one) for one in handler.open_upstreams()),
        )
        ended = worker.rest()
        await hurry.drip(lambda: None, ended, every_s=50)
        assert hurry.outcomes() == [NO_END]
        reading.set()


# --- answers --------------------------------------------------------------------------------------

ANSWERS = {
    "with a length": (b"Content-Length: 100\r\n\r\nbegun", b""),
    "in chunks": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n", b""),
    "in a chunk's extension": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n5;x=", b"x"),
    "in trailers": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n0\r\nx: ", b"x"),
    "until the end": (b"Connection: close\r\n\r\nbegun", b""),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("lane", LANES)
async def test_an_answer_of_which_no_more_comes_is_cut_and_looks_like_it(tmp_path, lane, answer):
    begin, drop = ANSWERS[answer]
    servers = []

    async def begins(_head, writer):
        servers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\n" + begin)

    async with a_worker(tmp_path, lane) as (worker, hurry):
        worker.server.respond = begins
        worker.send(worker.head())
        await worker.reader.readuntil(b"begun")

        async def to_its_end() -> bytes:
            return await worker.reader.read()

        ended = spawn(to_its_end(), "read to the end")
        await hurry.drip(lambda: servers[0].write(drop), ended, every_s=100)
        if answer == "until the end":  # which a quiet end would make a whole answer
            assert isinstance(ended.exception(), OSError)
        elif ended.exception() is None:
            assert b"0\r\n\r\n" not in ended.result()
        assert hurry.outcomes() == [NO_END]
        await worker.world.everything_is_closed()


@pytest.mark.parametrize("lane", LANES)
async def test_an_event_stream_with_an_event_a_minute_lives_until_its_whole_time_is_up(
    tmp_path, lane
):
    servers = []

    async def streams(_head, writer):
        servers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")

    deadlines = Deadlines(exchange_s=3_000)
    async with a_worker(tmp_path, lane, deadlines=deadlines) as (worker, hurry):
        worker.server.respond = streams
        worker.send(worker.head())
        await worker.reader.readuntil(b"\r\n\r\n")

        async def event():
            servers[0].write(b":\n")
            assert await worker.reader.readexactly(2) == b":\n"

        await hurry.steps(40, 60, event)
        assert hurry.outcomes() == []
        ended = worker.rest()
        await hurry.drip(lambda: servers[0].write(b":\n"), ended, every_s=60)
        assert hurry.outcomes() == ["egress.deadline"]
        await worker.world.everything_is_closed()


async def test_the_head_of_an_answer_that_drips_is_given_up(tmp_path):
    servers = []

    async def drips(_head, writer):
        servers.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")

    async with a_worker(tmp_path, "inspected") as (worker, hurry):
        worker.server.respond = drips
        worker.send(worker.head())
        await until("it is asked", lambda: servers)
        ended = worker.rest()
        await hurry.drip(lambda: servers[0].write(b"x"), ended)
        assert ended.result().startswith(b"HTTP/1.1 504 ")
        assert hurry.outcomes() == [NO_END]


# --- connections that carry nothing ---------------------------------------------------------------


@pytest.mark.parametrize("lane", ["plain", "connect"])
@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_decision_that_takes_longer_than_silence_may_last_is_nobodys_silence(
    tmp_path, monkeypatch, lane, is_allowed
):
    looks = seen_looks(monkeypatch)
    async with chaos(tmp_path, deadlines=Deadlines(silence_s=0.2)) as world:
        hurry = Hurry(world.harness)
        reader, writer = await world.harness.connect()
        worker = Side(world, world.plain, reader, writer, "plain.example", True)
        secure = f"api.example:{world.secure.port}"
        tunnel = f"CONNECT {secure} HTTP/1.1\r\nHost: {secure}\r\nProxy-Authorization: {basic()}"
        asked = worker.head() if lane == "plain" else f"{tunnel}\r\n\r\n".encode()
        waiting = world.core.resolver = WaitingResolver(world.core.resolver)
        worker.send(asked)
        await waiting.asked.wait()
        hurry.pass_s(7)
        looks.clear()
        await until("it was looked at twice", lambda: len(looks) >= 2)
        if not is_allowed:
            monkeypatch.setattr(waiting, "_inner", NoSuchName())
        waiting.go_on.set()
        reply = await read_reply(reader, lambda status: status != 200 or lane == "plain")
        assert reply is not None, "closed, without an answer, while it was decided about"
        assert (reply.status == 200) is is_allowed


async def test_an_addon_that_is_slow_with_a_new_connection_leaves_it_its_watchdog(
    tmp_path, monkeypatch
):
    looks, go_on = seen_looks(monkeypatch), asyncio.Event()

    async def chain(hook):
        if hook.name == "client_connected":
            await go_on.wait()

    inject = Injection(chain=chain, deadlines=Deadlines(silence_s=0.2))
    async with chaos(tmp_path, inject) as world:
        hurry = Hurry(world.harness)
        reader, writer = await world.harness.connect()
        worker = Side(world, world.plain, reader, writer, "plain.example", True)
        await until("it is looked at", lambda: looks)
        hurry.pass_s(7)
        looks.clear()
        await until("it was looked at twice", lambda: len(looks) >= 2)
        go_on.set()
        worker.send(worker.head())
        reply = await read_reply(reader)
        assert reply is not None
        assert reply.status == 200
        hurry.pass_s(7)
        assert await read_to_end(reader) == b"", "it is closed as soon as it is idle for too long"


class NoSuchName:
    async def resolve(self, host, port, asker=""):
        raise ResolutionRefused(Reason.RESOLUTION_FAILED)

    def close(self):
        pass


def seen_looks(monkeypatch) -> list[None]:
    """One entry for each look at whether a connection is idle."""
    looks: list[None] = []
    idle_for_s = UpstreamGuard.idle_for_s

    def look(self):
        looks.append(None)
        return idle_for_s(self)

    monkeypatch.setattr(UpstreamGuard, "idle_for_s", look)
    return looks


def test_the_time_of_decisions_is_no_part_of_the_time_in_which_nothing_was_carried() -> None:
    now_ms = 0
    clock = IdleClock(lambda: now_ms)
    now_ms = 100
    clock.decision_begins()
    clock.decision_begins()
    now_ms = 5_100
    assert clock.idle_ms == 0
    clock.decision_ends()
    now_ms = 9_100
    assert clock.idle_ms == 0, "one is pending yet"
    clock.decision_ends()
    assert clock.idle_ms == 100
    clock.decision_begins()
    clock.begin_again()
    now_ms = 9_200
    clock.decision_ends()
    now_ms = 9_250
    assert clock.idle_ms == 50
