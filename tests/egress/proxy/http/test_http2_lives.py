"""What holds for requests holds for streams: budgets, leaks, quarantine, another policy."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from palyra_egress.policy.load import load_policy
from palyra_egress.proxy.clocks import Clocks
from palyra_egress.proxy.core import REFUSALS_PER_MINUTE
from tests.egress.proxy.http.h2_world import POLICY, Http2World, http2_world
from tests.fakes.proxy_harness import LEASE, OTHER_LEASE, OTHER_SECRET, WORKER, basic

BOTH = pytest.mark.parametrize("speaks", [1, 2])
LEAKED = "AKIADECOY4QX7RZM2WTP"
WATCHFUL = POLICY.replace("[metadata_target", "[canary, authority_mismatch, metadata_target") + (
    "canaries:\n  - {{id: decoy, value: " + LEAKED + "}}\n"
)


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[Http2World]:
    async with http2_world(tmp_path, WATCHFUL) as made:
        yield made


async def silent(_session, _stream):
    await asyncio.Event().wait()


async def silent_in_http1(_head, _writer):
    return


async def open_streams(world, worker, speaks, count=5):
    """Streams whose requests have reached their server, which says nothing."""
    world.second.respond, world.first.respond = silent, silent_in_http1
    streams = [worker.ask(worker.fields(path=f"/x/{number}")) for number in range(count)]
    if speaks == 2:
        await world.second.until(lambda: len(world.second.streams) == count)
    else:
        async with asyncio.timeout(60):
            while len(world.first.heads) < count:
                world.first.arrived.clear()
                await world.first.arrived.wait()
    return streams


async def servers_are_closed(world):
    await world.first.wait_until_closed()
    await world.second.until(lambda: all(session.closed for session in world.second.sessions))


# --- who may not speak any more -------------------------------------------------------------------

ORDERS = {"block": {"worker_id": WORKER}, "unbind": {"lease_id": LEASE}, "snapshot": {}}


@BOTH
@pytest.mark.parametrize("order", ORDERS)
async def test_a_word_of_the_fleet_ends_every_open_stream(world, order, speaks):
    async with world.worker(speaks=speaks) as worker:
        await open_streams(world, worker, speaks)
        world.harness.tell(order, **ORDERS[order])
        await worker.ended()
        await servers_are_closed(world)
    await world.harness.core.connections.wait_until_empty(20)
    assert len(world.harness.core.connections) == 0
    assert len(world.transfers()) == 5


@BOTH
async def test_a_threat_on_one_stream_ends_the_others_before_it_is_answered(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        streams = await open_streams(world, worker, speaks)
        threat = worker.ask(worker.fields(authority="evil.example"))
        await worker.ended()
        assert threat.status == 421
        assert worker.goaway is not None
        assert {stream.status for stream in streams} <= {None, 502}, "their servers were reset"
        await servers_are_closed(world)
    assert world.harness.core.view.is_blocked(WORKER)
    assert {entry["outcome"] for entry in world.transfers()} == {"egress.authority_mismatch"}


async def test_a_threat_waits_for_nothing(tmp_path):
    """Refusals of a worker that is refused all the time come later; the end of its streams not."""
    policy = POLICY.replace("quarantine: [", "quarantine: [path_not_allowed, ")
    async with http2_world(tmp_path, policy) as world:
        core, paused = world.harness.core, []
        frozen = core.clocks.now_monotonic_ms()

        async def pause(seconds):
            paused.append(seconds)

        core.pause, core.clocks = pause, Clocks(core.clocks.now_unix_ms, lambda: frozen)
        while core._rates.take(f"refusals/{WORKER}", REFUSALS_PER_MINUTE, frozen):
            pass
        async with world.worker() as worker:
            await open_streams(world, worker, 2)
            threat = worker.ask(worker.fields(path="/elsewhere"))
            await worker.ended()
        assert threat.status == 403
        assert paused == []


async def test_a_worker_that_does_not_read_its_last_answer_is_cut_all_the_same(world):
    async with world.worker() as worker:
        worker.ask(worker.fields(authority="evil.example"))
        worker.writer.transport.pause_reading()
        await world.harness.core.connections.wait_until_empty(60)
        assert len(world.harness.core.connections) == 0
        worker.writer.transport.resume_reading()


@BOTH
@pytest.mark.parametrize("place", ["path", "header", "body"])
async def test_a_canary_on_a_stream_ends_the_connection(world, place, speaks):
    async with world.worker(speaks=speaks) as worker:
        await open_streams(world, worker, speaks, 2)
        match place:
            case "path":
                worker.ask(worker.fields(path=f"/x/{LEAKED}"))
            case "header":
                worker.ask(worker.fields(x_note=LEAKED))
            case _:
                stream = worker.ask(worker.fields("POST"), end=False)
                await worker.data(stream.stream_id, b"a" * 100 + LEAKED.encode(), end=True)
        await worker.ended()
        await servers_are_closed(world)
    assert world.harness.verdicts()[-1]["reason"] == "egress.canary"
    assert LEAKED.encode() not in bytes(world.first.received)
    assert LEAKED not in str([(s.fields, s.body) for s in world.second.streams])
    assert world.harness.core.view.is_blocked(WORKER)


async def test_credentials_of_another_worker_inside_the_tunnel_are_nobodys(world):
    """They end at the proxy, as in HTTP/1: the tunnel's identity speaks."""
    async with world.worker() as worker:
        answer = await worker.get(proxy_authorization=basic(OTHER_LEASE, OTHER_SECRET))
        assert answer.status == 200
    assert world.harness.verdicts()[-1]["worker_id"] == WORKER
    assert "proxy-authorization" not in world.second.streams[0].names()


# --- another policy -------------------------------------------------------------------------------


@BOTH
async def test_another_policy_ends_the_streams_it_does_not_allow_and_no_others(world, speaks):
    async with world.worker(speaks=speaks) as worker:
        kept, cut = await open_streams(world, worker, speaks, 2)
        ports = f"{world.first.port}, {world.second.port}"
        narrower = WATCHFUL.format(ports=ports).replace("/x/**", "/x/0")
        world.harness.core.service.replace_policy(load_policy(narrower.encode(), "policy.yaml"))
        world.harness.core.connections.review()
        await worker.answer(cut)
        assert cut.status is None or cut.status >= 400
        assert not kept.over
        assert (await worker.get("/x/1")).status == 403
        assert not kept.over
    await world.harness.core.connections.wait_until_empty(60)
    outcomes = [entry["outcome"] for entry in world.transfers()]
    assert outcomes[0] == "egress.path_not_allowed"
    assert outcomes[1] in ("aborted", "client_closed")


# --- budgets --------------------------------------------------------------------------------------

LIMITED = POLICY.replace(
    "    private:",
    "    limits: {{max_request_bytes: 100000, max_response_bytes: 100000}}\n    private:",
)


@BOTH
async def test_a_body_over_its_budget_ends_its_stream_alone(tmp_path, speaks):
    async with http2_world(tmp_path, LIMITED) as world, world.worker(speaks=speaks) as worker:
        other = (await open_streams(world, worker, speaks, 1))[0]
        stream = worker.ask(worker.fields("POST"), end=False)
        await worker.data(stream.stream_id, b"x" * 120_000)
        await worker.answer(stream)
        assert stream.status in (413, None)
        assert not other.over
        assert world.transfers()[-1]["outcome"] == "egress.request_too_large"
        assert not [s for s in world.second.streams if s.received > 100_000]
        assert len(bytes(world.first.received)) < 110_000


@BOTH
async def test_a_response_over_its_budget_ends_its_stream_alone(tmp_path, speaks):
    async def long(session, stream):
        session.head(stream.stream_id, [(":status", "200")])
        await session.data(stream.stream_id, b"x" * 300_000, end=True)

    async def long_in_http1(_head, writer):
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 20)
        writer.write(b"0\r\n\r\n")

    async with http2_world(tmp_path, LIMITED) as world, world.worker(speaks=speaks) as worker:
        world.second.respond, world.first.respond = long, long_in_http1
        stream = await worker.get()
        assert stream.reset is not None
        assert stream.received <= 100_000
        assert (await worker.answer(worker.ask(worker.fields("DELETE")))).status == 403
        assert world.transfers()[-1]["outcome"] == "egress.response_too_large"


async def test_a_declared_length_over_its_budget_is_refused_before_a_byte(tmp_path):
    async with http2_world(tmp_path, LIMITED) as world, world.worker() as worker:
        stream = worker.ask(worker.fields("POST", content_length="100001"), end=False)
        assert (await worker.answer(stream)).status == 413
        world.nothing_arrived()


@BOTH
async def test_hourly_bytes_count_over_all_streams(tmp_path, speaks):
    policy = POLICY.replace("    private:", "    limits: {{bytes_per_hour: 1000}}\n    private:")
    async with http2_world(tmp_path, policy) as world, world.worker(speaks=speaks) as worker:
        assert (await worker.post(b"x" * 600)).status == 200
        assert (await worker.post(b"x" * 600)).status != 200
        assert (await worker.get()).status == 429


@BOTH
async def test_a_rate_counts_streams(tmp_path, speaks):
    policy = POLICY.replace("    private:", "    limits: {{requests_per_minute: 3}}\n    private:")
    async with http2_world(tmp_path, policy) as world, world.worker(speaks=speaks) as worker:
        answers = [(await worker.get()).status for _ in range(5)]
        assert answers == [200, 200, 200, 429, 429]


# --- streaming ------------------------------------------------------------------------------------


@BOTH
async def test_events_of_a_server_arrive_one_by_one(world, speaks):
    """Server-sent events, and long polling: each is there before the next one is made."""
    made = asyncio.Queue()

    async def events(session, stream):
        session.head(stream.stream_id, [(":status", "200"), ("content-type", "text/event-stream")])
        while (event := await made.get()) is not None:
            await session.data(stream.stream_id, event)
        session.h2.end_stream(stream.stream_id)
        session.flush()

    async def events_in_http1(_head, writer):
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        while (event := await made.get()) is not None:
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    world.second.respond, world.first.respond = events, events_in_http1
    async with world.worker(speaks=speaks) as worker:
        stream = worker.ask(worker.fields())
        seen = b""
        for number in range(10):
            event = b"data: %d\n\n" % number
            seen += event
            await made.put(event)
            await worker.until(lambda: bytes(stream.body) == seen)  # noqa: B023 asked at once
        await made.put(None)
        assert (await worker.answer(stream)).ended


@BOTH
async def test_a_body_leaves_piece_by_piece_while_it_is_made(world, speaks):
    world.second.respond, world.first.respond = silent, silent_in_http1
    async with world.worker(speaks=speaks) as worker:
        stream = worker.ask(worker.fields("POST"), end=False)
        for number in range(10):
            piece = b"piece %d" % number
            await worker.data(stream.stream_id, piece)
            if speaks == 2:
                await world.second.until(
                    lambda: world.second.streams and piece in world.second.streams[0].body  # noqa: B023
                )
            else:
                async with asyncio.timeout(60):
                    while piece not in bytes(world.first.received):
                        world.first.arrived.clear()
                        await world.first.arrived.wait()


@BOTH
async def test_a_slow_stream_does_not_hold_up_the_others(world, speaks):
    async def slow(session, stream):
        if stream[":path"] == "/x/slow":
            await asyncio.Event().wait()
        session.head(stream.stream_id, [(":status", "200")], end=True)

    async def slow_in_http1(head, writer):
        if b"/x/slow" not in head:
            writer.write(world.first.answer)

    world.second.respond, world.first.respond = slow, slow_in_http1
    async with world.worker(speaks=speaks) as worker:
        held = worker.ask(worker.fields(path="/x/slow"))
        for _ in range(20):
            assert (await worker.get()).status == 200
        assert not held.over
