"""The proxy's view as a stream: in order, line by line, and over as soon as it cannot be fresh."""

import asyncio
from contextlib import aclosing

import pytest
from ulid import ULID

from palyra_fleet.api.gatekeeper import MAX_LONG_CALLS_PER_CALLER
from palyra_fleet.client import FleetProblem, FleetUnavailable
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.request_proof import HEADER, prove
from palyra_fleet.wire.view_models import ViewMessage
from tests.fakes.raw_http import open_connection
from tests.fakes.served_fleet import ServedFleet, served_fleet


def tick(seq: int) -> ViewMessage:
    return ViewMessage(kind="tick", epoch=1, seq=seq)


async def test_a_proxy_reads_every_message_in_order(fleet: ServedFleet) -> None:
    sent = [tick(seq) for seq in range(1, 50)]
    for message in sent:
        fleet.service.view_messages.put_nowait(message)
    async with fleet.as_proxy() as proxy, aclosing(proxy.view()) as view:
        read = [await anext(view) for _ in sent]
    assert read == sent


async def test_a_message_arrives_before_the_next_one_is_made(fleet: ServedFleet) -> None:
    async with fleet.as_proxy() as proxy, aclosing(proxy.view()) as view:
        for seq in (1, 2, 3):
            fleet.service.view_messages.put_nowait(tick(seq))
            assert (await anext(view)).seq == seq


async def test_a_view_that_ends_is_an_error_and_never_a_quiet_end(fleet: ServedFleet) -> None:
    fleet.service.view_messages.put_nowait(tick(1))
    fleet.service.view_messages.put_nowait(None)
    async with fleet.as_proxy() as proxy, aclosing(proxy.view()) as view:
        assert (await anext(view)).seq == 1
        with pytest.raises(FleetUnavailable):
            await anext(view)


async def test_a_view_that_falls_silent_is_an_error(fleet: ServedFleet) -> None:
    async with fleet.as_proxy() as proxy, aclosing(proxy.view(silence_ms=50)) as view:
        with pytest.raises(FleetUnavailable):
            await anext(view)


@pytest.mark.parametrize(
    "fault", [RuntimeError("broken"), FleetRefusal(FleetReason.CLOSED, "closing")]
)
async def test_a_view_that_breaks_off_inside_the_fleet_is_an_error_at_the_proxy(
    fleet: ServedFleet, fault: Exception
) -> None:
    fleet.service.fail_with = fault
    async with fleet.as_proxy() as proxy, aclosing(proxy.view()) as view:
        with pytest.raises(FleetUnavailable):
            await anext(view)


async def test_a_proxy_that_goes_away_ends_its_view_in_the_fleet(fleet: ServedFleet) -> None:
    fleet.service.view_messages.put_nowait(tick(1))
    async with fleet.as_proxy() as proxy, aclosing(proxy.view()) as view:
        await anext(view)
    while not fleet.service.view_ended.is_set():
        fleet.service.view_messages.put_nowait(tick(2))
        await asyncio.sleep(0)


async def test_a_proxy_that_reads_too_slowly_is_dropped() -> None:
    async with served_fleet(view_write_within_ms=50) as fleet:
        workers = tuple(str(ULID()) for _ in range(40_000))
        large = ViewMessage(kind="snapshot", epoch=1, seq=1, blocked_workers=workers)
        for _ in range(8):
            fleet.service.view_messages.put_nowait(large)
        proof = prove(fleet.proxy_key, "GET", "/v1/proxy/view", b"", now_unix_ms())
        reader, writer = await open_connection(fleet.socket_path)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(
            f"GET /v1/proxy/view HTTP/1.1\r\nHost: x\r\n{HEADER}: {proof}\r\n\r\n".encode()
        )
        await fleet.service.view_ended.wait()
        writer.close()


async def test_a_worker_cannot_read_the_view(fleet: ServedFleet) -> None:
    async with fleet.as_proxy(fleet.worker_key) as client, aclosing(client.view()) as view:
        with pytest.raises(FleetProblem) as refused:
            await anext(view)
    assert refused.value.reason == "api.caller_not_allowed"


async def test_closing_the_server_ends_open_views_and_long_polls() -> None:
    async with served_fleet() as fleet:
        proxy, worker = fleet.as_proxy(), fleet.as_worker()
        view = proxy.view()
        fleet.service.view_messages.put_nowait(tick(1))
        await anext(view)
        polling = asyncio.gather(worker.orders(0, 30_000), return_exceptions=True)
        await fleet.service.orders_asked.get()
    (ended,) = await polling
    assert isinstance(ended, FleetUnavailable)
    with pytest.raises(FleetUnavailable):
        await anext(view)
    await proxy.close()
    await worker.close()


async def test_a_caller_may_wait_in_a_few_places_at_once_and_no_more(fleet: ServedFleet) -> None:
    async with fleet.as_worker() as worker, fleet.as_proxy() as proxy:
        polling = [
            spawn(worker.orders(0, 30_000), f"poll {number}")
            for number in range(MAX_LONG_CALLS_PER_CALLER)
        ]
        for _ in polling:
            await fleet.service.orders_asked.get()
        with pytest.raises(FleetProblem) as refused:
            await worker.orders(0, 30_000)
        assert (refused.value.status, refused.value.reason) == (429, "api.too_many_calls")
        fleet.service.view_messages.put_nowait(tick(1))
        async with aclosing(proxy.view()) as view:  # another caller is not affected
            assert (await anext(view)).seq == 1
        await fleet.service.quarantine("operator", fleet.worker_id, "why")
        for orders in await asyncio.gather(*polling):
            assert len(orders) == 1
        assert len(await worker.orders(0, 30_000)) == 1
